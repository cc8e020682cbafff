"""An exported file as a model: photographs of any size in, class indices at their own size out.

A file of one size scales a photograph to fit, pads it with the mean colour, and scales the scores
back. A file of free size takes it at the size that the checkpoint's own prediction gives it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Num, UInt8

from fastfcn_jax.data import pixel_type
from fastfcn_jax.data.pixel_type import PixelType
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.export import metadata
from fastfcn_jax.files import first_line
from fastfcn_jax.inference.prediction import Prediction
from fastfcn_jax.inference.rescale import bilinear_matrix, keep_ratio_size, resize_image

MEAN_COLOR = (124, 116, 104)  # normalises to about 0, mmsegmentation's padding value
BLOCK_ROWS = 64  # rows of scores at full resolution held in memory at once

Run = Callable[[Num[np.ndarray, "b h w c"]], Mapping[str, Any]]


class Exported:
    """An exported file, to be used like `fastfcn_jax.api.Model`.

    Attributes:
      info: name of the data set, class names, palette.
      size: (height, width) of the images that the program takes; None: any.
      precision: of its arithmetic, such as "float32".
      pixel: type of the images that it takes.
      threshold: of a one-channel model; None: any other.
      metadata: everything else in the file's description.
    """

    def __init__(self, path: Path, run: Run, said: dict[str, Any]):
        self._path = path
        self._run = run
        self.metadata = said
        self.size = metadata.size(said)
        self.precision = metadata.precision(said)
        self.info: DatasetInfo = metadata.info(said)
        self.pixel, mean = metadata.images(said)
        self.threshold = metadata.threshold(said)
        self._fill = np.round(mean or MEAN_COLOR)
        self._test_scale = metadata.test_scale(said)
        self._align_corners = said["config"]["model"]["lineage"] == "official"

    @property
    def predictor(self) -> "Exported":
        """The object with `stream`: this one, as for `fastfcn_jax.api.Model`."""
        return self

    def expect(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Does nothing: there is one program."""

    def run(self, images: Num[np.ndarray, "b h w c"]) -> dict[str, np.ndarray]:
        """{"labels": uint8 (b, H, W), "logits": float32 (b, H/8, W/8, k)} of images of `size`.

        The logits have ceil(H / 8) rows and ceil(W / 8) columns.

        Raises:
          UserError: the file's program fails, or returns something else.
        """
        try:
            answers = {name: np.asarray(value) for name, value in self._run(images).items()}
        except Exception as error:  # each library raises kinds of its own
            raise UserError(f"{self._path}: does not run ({reason(error)}).") from error
        labels, logits = answers["labels"], answers["logits"]
        batch, classes = len(images), self.info.num_classes
        size = images.shape[1:3]
        is_map = logits.ndim == 4 and 0 < logits.size <= batch * math.prod(size) * classes
        if labels.shape != (batch, *size) or not is_map or logits.shape[3] != classes:
            raise UserError(
                f"{self._path}: gives labels {labels.shape} and logits {logits.shape}, not those "
                f"of {classes} classes for {batch}x{size[0]}x{size[1]} pixels."
            )
        return answers

    def __call__(self, image: Num[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w"]:
        """Class indices in the photograph's size."""
        return self.predict(image).labels

    def predict(self, image: Num[np.ndarray, "h w c"], *, confidence: bool = False) -> Prediction:
        """Class indices and, if requested, the probability of each."""
        labels = np.empty(image.shape[:2], np.uint8)
        sure = np.empty(image.shape[:2], np.float32) if confidence else None
        for top, scores in self._blocks(image):
            rows = slice(top, top + len(scores))
            if self.threshold is not None:  # one channel, as a second class beside one of logit 0
                odds = 1 / (1 + np.exp(scores[..., 0] - scores[..., 1]))
                labels[rows] = odds > self.threshold
                if sure is not None:
                    sure[rows] = np.where(labels[rows], odds, 1 - odds)
                continue
            labels[rows] = scores.argmax(-1)
            if sure is not None:
                sure[rows] = 1 / np.exp(scores - scores.max(-1, keepdims=True)).sum(-1)
        return Prediction(labels, sure, image=image, info=self.info)

    def stream(
        self, images: Iterable[tuple[Any, np.ndarray]], *, confidence: bool = False
    ) -> Iterator[tuple[Any, Prediction]]:
        """Yields (key, prediction) for (key, photograph), in order."""
        for key, image in images:
            yield key, self.predict(image, confidence=confidence)

    def logits(self, image: Num[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w k"]:
        """Logits in the photograph's size."""
        return np.concatenate([scores for _, scores in self._blocks(image)])

    def _blocks(self, image) -> Iterator[tuple[int, Float[np.ndarray, "r w k"]]]:
        """Yields (first row, logits) at full resolution, a few rows at a time."""
        height, width = image.shape[:2]
        content, size = self._fit((height, width))
        scores = self.run(self.input(image))["logits"][0]
        rows, columns = (
            self._upsampling(*lengths)
            for lengths in zip(scores.shape[:2], size, content, (height, width), strict=True)
        )
        across = np.einsum("Ww,hwk->hWk", columns, scores, optimize=True)
        for top in range(0, height, BLOCK_ROWS):
            part = rows[top : top + BLOCK_ROWS]
            yield top, np.tensordot(part, across, axes=1)

    def input(self, image: Num[np.ndarray, "h w c"]) -> Num[np.ndarray, "1 h2 w2 c"]:
        """The photograph as the program takes it: scaled and padded.

        Raises:
          UserError: it is not of the type that the program takes.
        """
        pixel_type.check(PixelType(image.shape[2], image.dtype.name), "the image", self.pixel)
        content, size = self._fit(image.shape[:2])
        batch = np.empty((1, *size, self.pixel.channels), self.pixel.dtype)
        batch[:] = self._fill
        batch[0, : content[0], : content[1]] = resize_image(image, content)
        return batch

    def _fit(self, own: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """What a photograph of this size is scaled to, and the program's input around it."""
        if self.size is None:
            size = keep_ratio_size(own, self._test_scale) if all(self._test_scale) else own
            return size, size
        factor = min(self.size[0] / own[0], self.size[1] / own[1])
        height, width = (max(int(n * factor + 0.5), 1) for n in own)
        return (height, width), self.size

    def _upsampling(self, map_length: int, padded: int, content: int, own: int):
        """Matrix from the 1/8 map of the padded input to the photograph: two resizes in one."""
        to_input = bilinear_matrix(map_length, padded, align_corners=self._align_corners)
        to_own = bilinear_matrix(content, own, align_corners=self._align_corners)
        return to_own @ to_input[:content]


def reason(error: Exception) -> str:
    """The error's first line, escaped: its text may come from the file, with control characters."""
    line = first_line(error)
    return line if line.isprintable() else ascii(line)[1:-1]
