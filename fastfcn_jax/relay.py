"""A connection to JAX's coordination service that outlives the process that runs the service.

JAX's client aborts its process, with a stack trace and no chance to say why, as soon as the
connection closes. Through a relay it does not notice, and `peers.watch` ends the process.
"""

import contextlib
import socket
import threading

CONNECT = 10.0  # seconds to connect; JAX's client tries again until its own limit


class Relay:
    """Passes bytes between the address `here` on this machine and a remote one.

    holds: whether connections here stay open when the remote side closes them.
    """

    def __init__(self, address: str):
        host, _, port = address.rpartition(":")
        self.remote = (host.strip("[]"), int(port))
        self.holds = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.here = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            inner, _ = self._server.accept()
            try:
                outer = socket.create_connection(self.remote, timeout=CONNECT)
            except OSError:
                inner.close()
                continue
            outer.settimeout(None)
            for ends in ((inner, outer, False), (outer, inner, True)):
                threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, inbound: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        if not (self.holds and inbound):
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)
