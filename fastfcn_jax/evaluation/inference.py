"""Predictor: images of any size in, class indices at each image's own size out."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, UInt8
from ml_collections import ConfigDict

from fastfcn_jax import models
from fastfcn_jax.evaluation import protocols
from fastfcn_jax.evaluation.merge import BLOCK_ROWS, merge, merge_scores
from fastfcn_jax.evaluation.protocols import Protocol, View, upsampling
from fastfcn_jax.evaluation.resize import resize_image

Image = UInt8[np.ndarray, "h w 3"]


class Prediction(NamedTuple):
    """Class indices of one image at its own size, and the probability of each if asked for."""

    labels: UInt8[np.ndarray, "h w"]
    confidence: Float[np.ndarray, "h w"] | None


@functools.partial(jax.jit, static_argnames="model")
def _network(
    model: nn.Module,
    variables: Any,
    images: UInt8[Array, "b h w 3"],
    size: Int[Array, "b 2"] | None,
) -> Float[Array, "b h8 w8 k"]:
    outputs = model.apply(variables, models.normalize(images, size), size=size)
    return outputs.logits.astype(jnp.float32)


_merge = jax.jit(merge, static_argnames=("softmax", "confidence"))
_merge_scores = jax.jit(merge_scores, static_argnames="softmax")


class Predictor:
    """Runs a segmentor on images by one protocol.

    Args:
      model: the segmentor; its logits are at 1/8 of its input.
      variables: {"params", "batch_stats"}; may be replaced by assignment, nothing is recompiled.
      protocol: what `protocols.build` made.
      align_corners: of every resize of the logits (False: mmseg, True: official lineage).
    """

    def __init__(
        self,
        model: nn.Module,
        variables: Any,
        *,
        protocol: Protocol,
        align_corners: bool = False,
    ):
        self.model = model
        self.variables = variables
        self.protocol = protocol
        self.align_corners = align_corners

    def __call__(self, image: Image) -> UInt8[np.ndarray, "h w"]:
        """Class indices of one RGB image of any size."""
        return self.predict(image).labels

    def predict(self, image: Image, *, confidence: bool = False) -> Prediction:
        height, width = image.shape[:2]
        parts = self._parts(image)
        labels, sure = _merge(*parts, softmax=self.protocol.softmax, confidence=confidence)
        labels = np.asarray(labels)[:height, :width]
        return Prediction(labels, np.asarray(sure)[:height, :width] if confidence else None)

    def scores(self, image: Image) -> Float[np.ndarray, "h w k"]:
        """Logits at the image's own size; mean probabilities if the protocol averages those."""
        height, width = image.shape[:2]
        scores = _merge_scores(*self._parts(image), softmax=self.protocol.softmax)
        return np.asarray(scores)[:height, :width]

    def stream(
        self, images: Iterable[tuple[Any, Image]], *, confidence: bool = False
    ) -> Iterator[tuple[Any, Prediction]]:
        """Yields (key, prediction) for every (key, image), not necessarily in the same order."""
        for key, image in images:
            yield key, self.predict(image, confidence=confidence)

    def _parts(self, image: Image) -> tuple[list, list, list]:
        logits, rows, columns = [], [], []
        for view in self.protocol.views(image.shape[:2]):
            mosaic, map_size = self._run(image, view)
            y, x = upsampling(view, image.shape[:2], map_size, align_corners=self.align_corners)
            logits.append(mosaic)
            rows.append(np.pad(y, ((0, -len(y) % BLOCK_ROWS), (0, 0))))
            columns.append(x)
        return logits, rows, columns

    def _run(self, image: Image, view: View) -> tuple[Float[Array, "nh nw k"], tuple[int, int]]:
        """The mosaic of the 1/8 maps of a view's windows, and the size of one map."""
        scaled = resize_image(image, view.size)
        if view.flip:
            scaled = scaled[:, ::-1]
        maps = [
            _network(self.model, self.variables, scaled[None, top:bottom, left:right], None)
            for (top, bottom), (left, right) in view.windows
        ]
        return _mosaic(maps, len(view.rows), len(view.columns)), maps[0].shape[1:3]


def _mosaic(maps: Sequence[Array], rows: int, columns: int) -> Float[Array, "nh nw k"]:
    height, width, classes = maps[0].shape[1:]
    grid = jnp.concatenate(maps).reshape(rows, columns, height, width, classes)
    return grid.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, classes)


def build(
    config: ConfigDict, model: nn.Module, variables: Any, *, protocol: str | None = None
) -> Predictor:
    """The predictor of a configuration; `protocol` overrides `config.eval.protocol`."""
    return Predictor(
        model,
        variables,
        protocol=protocols.build(
            protocol or config.eval.protocol,
            test_scale=config.data.test_scale,
            ratios=config.eval.ratios,
            crop_size=config.eval.crop_size,
            stride=config.eval.stride,
        ),
        align_corners=config.model.lineage == "official",
    )
