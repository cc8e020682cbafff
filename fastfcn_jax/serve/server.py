"""One local page: drop a photograph, see its label map, overlay, legend; download the results."""

import base64
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np

from fastfcn_jax import pictures
from fastfcn_jax.data import decode
from fastfcn_jax.errors import UserError

PAGE = Path(__file__).parent / "page.html"
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
MAX_BYTES = 32 << 20
MAX_PIXELS = 40_000_000
CONTENT_SECURITY = (
    "default-src 'none'; img-src 'self' data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'"
)


def answer(model, data: bytes) -> dict:
    """What the page shows for one uploaded photograph.

    Raises:
      UserError: no picture, or too many pixels.
    """
    height, width = decode.size(data, "the upload")
    if height * width > MAX_PIXELS:
        raise UserError(
            f"{width}x{height} pixels are too many (limit {MAX_PIXELS // 10**6} megapixels)."
        )
    prediction = model.predict(decode.image(data, "the upload"))
    labels, info = prediction.labels, model.info
    counts = np.bincount(labels.ravel(), minlength=info.num_classes)
    present = sorted(np.flatnonzero(counts), key=lambda k: -counts[k])
    return {
        "width": width,
        "height": height,
        "labels": _png(labels),
        "colors": _png(pictures.colorize(labels, info.palette)),
        "confidence": round(float(prediction.confidence.mean()), 4),
        "classes": [
            {
                "name": info.class_names[k],
                "color": "#{:02x}{:02x}{:02x}".format(*info.palette[k]),
                "share": round(100 * counts[k] / labels.size, 2),
            }
            for k in present
        ],
    }


def _png(image: np.ndarray) -> str:
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()


class Handler(BaseHTTPRequestHandler):
    """GET / gives the page; POST /predict takes an image file and gives JSON."""

    server: "Server"
    timeout = 60  # seconds for a client that stops sending

    def parse_request(self) -> bool:
        """Refuses names of other hosts: a page elsewhere could point its own at this machine."""
        if not super().parse_request():
            return False
        name = urllib.parse.urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if self.server.is_local and name not in LOCAL_NAMES:
            self._json(403, {"error": "this server is for this machine alone"})
            return False
        return True

    def do_GET(self) -> None:
        if self.path == "/":
            self._send(200, "text/html; charset=utf-8", PAGE.read_bytes())
        elif self.path == "/model":
            self._json(200, self.server.about)
        else:
            self._json(404, {"error": "no such page"})

    def do_POST(self) -> None:
        if self.path != "/predict":
            return self._json(404, {"error": "no such page"})
        # Another site's page could post here in its visitor's name; only ours can set this.
        if self.headers.get("X-Requested-With") != "fastfcn":
            return self._json(403, {"error": "use the page that this server gives"})
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or not 0 < int(length) <= MAX_BYTES:
            self.close_connection = True
            return self._json(413, {"error": f"the file is empty or over {MAX_BYTES >> 20} MiB"})
        data = self.rfile.read(int(length))
        try:
            with self.server.busy:  # one at a time: the device has no more to give
                result = answer(self.server.model, data)
        except UserError as error:
            return self._json(422, {"error": str(error)})
        return self._json(200, result)

    def _json(self, status: int, content: dict) -> None:
        self._send(status, "application/json", json.dumps(content).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", CONTENT_SECURITY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments) -> None:
        """Keeps the terminal quiet."""


class Server(ThreadingHTTPServer):
    """Serves one model."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], model):
        super().__init__(address, Handler)
        self.model = model
        self.is_local = address[0] in LOCAL_NAMES
        self.busy = threading.Lock()
        self.about = {
            "dataset": model.info.name,
            "classes": list(model.info.class_names),
            "protocol": model.predictor.protocol.name,
        }


def serve(
    checkpoint: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    protocol: str | None = None,
) -> None:
    """Serves the page for one model until Ctrl-C.

    Args:
      host: address to listen on; the default is reached from this machine alone.
      port: 0: any free one.

    Raises:
      UserError: no model in the folder, or the address cannot be listened on.
    """
    from fastfcn_jax import api, runtime

    runtime.cache_compilations()
    model = api.load(checkpoint, protocol=protocol)
    try:
        server = Server((host, port), model)
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror})."
        ) from error
    print(f"http://{host}:{server.server_port}  (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
