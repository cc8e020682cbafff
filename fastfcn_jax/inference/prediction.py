"""What a model says of one image: class indices, and the pictures and figures made of them."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, Num, UInt8
from PIL import Image

from fastfcn_jax import files, pictures, polygons
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError

SHOWN = (320, 1280)  # width in pixels of the picture in a notebook, at least and at most


class _Pair(NamedTuple):
    labels: UInt8[np.ndarray, "h w"]
    confidence: Float[np.ndarray, "h w"] | None


class Prediction(_Pair):
    """Class indices of one image at its own size and, if requested, their probabilities.

    Unpacks into the two: `labels, confidence = model.predict(image)`. In a notebook it shows
    itself, as the photograph under the colours of its classes with a legend.

    Attributes:
      labels: class indices.
      confidence: the probability of each, from 0 to 1; None if it was not requested.
      image: the photograph.
      info: name of the data set, class names, palette.
    """

    image: Num[np.ndarray, "h w c"] | None
    info: DatasetInfo | None

    def __new__(
        cls,
        labels: UInt8[np.ndarray, "h w"],
        confidence: Float[np.ndarray, "h w"] | None = None,
        *,
        image: Num[np.ndarray, "h w c"] | None = None,
        info: DatasetInfo | None = None,
    ):
        self = super().__new__(cls, labels, confidence)
        self.image, self.info = image, info
        return self

    def overlay(self, *, opacity: float = 0.5) -> UInt8[np.ndarray, "h w 3"]:
        """The photograph overlaid with the colours of its classes.

        A class called background is left clear.
        """
        image, info = self._known()
        clear = pictures.background(info.class_names)
        return pictures.overlay(image, self.labels, info.palette, opacity, clear)

    def legend(self, *, width: int | None = None) -> UInt8[np.ndarray, "h2 w2 3"]:
        """A picture of the classes that occur and their share of the pixels, largest first.

        Args:
          width: in pixels; None: that of the photograph.
        """
        _, info = self._known()
        wide = self.labels.shape[1] if width is None else width
        return pictures.legend(self.labels, info.class_names, info.palette, wide)

    def shares(self) -> dict[str, float]:
        """The share of each class that occurs, in percent of the pixels, largest first."""
        _, info = self._known()
        counts = np.bincount(self.labels.ravel(), minlength=256)[: info.num_classes]
        order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        return {info.class_names[k]: 100 * float(counts[k]) / self.labels.size for k in order}

    def polygons(self, *, min_pixels: int = 1) -> dict[str, list[list[Int[np.ndarray, "_ 2"]]]]:
        """The outlines of the regions of each class that occurs.

        A region is a list of rings, the outer outline and then its holes. A ring is the corners
        (x, y) of pixels in order, without the first one again at the end: the rings enclose exactly
        the pixels of the region, which are connected by their sides.

        Args:
          min_pixels: leave smaller regions out.
        """
        _, info = self._known()
        found: dict[str, list] = {}
        for region in polygons.regions(self.labels, info.num_classes):
            if region.area >= min_pixels:
                found.setdefault(info.class_names[region.label], []).append(polygons.rings(region))
        return found

    def save(self, path: str | Path, *, legend: bool = False) -> list[Path]:
        """Writes what `fastfcn predict` writes of a photograph, and returns the files' names.

        Args:
          path: of the label map, `.png`, a picture of class indices with the classes' colours as
            its palette. The overlay is `<stem>_overlay.png` beside it, the probabilities
            `<stem>_confidence.png`.
          legend: list the classes below the overlay.

        Raises:
          UserError: the name does not end in .png, or a file cannot be written.
        """
        _, info = self._known()
        path = Path(path).expanduser()
        if path.suffix.lower() != ".png":
            raise UserError(
                f"{path}: the label map has to be a PNG, which keeps every class index; give a "
                f"name such as {path.with_suffix('.png').name}."
            )
        drawn = self.overlay()
        if legend:
            drawn = pictures.with_legend(drawn, self.labels, info.class_names, info.palette)
        results = {"_overlay": drawn}
        if self.confidence is not None:
            results["_confidence"] = np.round(255 * self.confidence).astype(np.uint8)
        files.make_folder(path.parent)
        files.write_bytes(path, with_palette(self.labels, info.palette))
        written = [path]
        for mark, picture in results.items():
            written.append(path.with_name(f"{path.stem}{mark}.png"))
            files.write_image(written[-1], picture)
        return written

    def __repr__(self) -> str:
        height, width = self.labels.shape
        said = [f"Prediction {height}x{width}"]
        if self.info is not None:
            said.append(", ".join(f"{name} {x:.1f} %" for name, x in self.shares().items()))
        if self.confidence is not None:
            said.append(f"mean confidence {float(self.confidence.mean()):.2f}")
        return ": ".join(said[:2]) + "".join(f"; {part}" for part in said[2:])

    def _repr_png_(self) -> bytes | None:
        """The overlay with its legend, scaled to be seen, as PNG; None without a photograph."""
        if self.image is None or self.info is None:
            return None
        drawn, width = self.overlay(), self.labels.shape[1]
        shown = min(max(width, SHOWN[0]), SHOWN[1])
        if shown != width:
            height = max(round(len(drawn) * shown / width), 1)
            way = cv2.INTER_NEAREST if shown > width else cv2.INTER_AREA
            drawn = cv2.resize(drawn, (shown, height), interpolation=way)
        both = np.concatenate([drawn, self.legend(width=shown)])
        return cv2.imencode(".png", both[..., ::-1])[1].tobytes()

    def _known(self) -> tuple[Any, DatasetInfo]:
        if self.image is None or self.info is None:
            raise UserError(
                "this prediction knows neither its photograph nor the classes; get it from "
                "model.predict(image)."
            )
        return self.image, self.info


def with_palette(labels: UInt8[np.ndarray, "h w"], palette: UInt8[np.ndarray, "k 3"]) -> bytes:
    """A palette PNG: programs read the class indices, people see their colours."""
    picture, buffer = Image.fromarray(labels), io.BytesIO()
    colors = pictures.colorize(np.arange(256, dtype=np.uint8)[None], palette)
    picture.putpalette(colors.tobytes())
    picture.save(buffer, "PNG")
    return buffer.getvalue()
