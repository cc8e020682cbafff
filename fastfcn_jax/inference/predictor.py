"""Predictor: images of any size in, class indices at each image's own size out."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Num, UInt8
from ml_collections import ConfigDict

from fastfcn_jax import models
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.inference import protocols, windowed
from fastfcn_jax.inference.merge import merge, merge_scores
from fastfcn_jax.inference.network import Variables, network
from fastfcn_jax.inference.plan import Group, Plan
from fastfcn_jax.inference.prediction import Prediction
from fastfcn_jax.inference.protocols import Protocol
from fastfcn_jax.inference.rescale import Size, resize_image
from fastfcn_jax.inference.upsampling import axis_matrices, stack, taps_of
from fastfcn_jax.models import folding

Image = Num[np.ndarray, "_ _ _"]

# How many sets of upsampling weights stay on the device, one for each scale and flip of a batch of
# given sizes. A data set with one image size needs at most twelve (ms_flip). Making a set for
# 1024x2048 takes the host 1 ms, about a third of what a GPU needs for the network.
KEPT_WEIGHTS = 16

_CHOICE = ("softmax", "confidence", "threshold")


@functools.partial(jax.jit, static_argnames=("model", "scaling", *_CHOICE))
def _predict(model, variables, images, size, rows, columns, *, scaling, **choice):
    """Network and merge in one program, for protocols with one pass per image."""
    maps = [network(model, variables, images, size, scaling)]
    return merge(maps, rows, columns, **choice)


_network = jax.jit(network, static_argnames=("model", "scaling"))
_merge = jax.jit(merge, static_argnames=_CHOICE)
_merge_scores = jax.jit(merge_scores, static_argnames="softmax")


class Predictor:
    """Runs a segmentor on images by one protocol.

    Args:
      model: the segmentor; its logits have 1/8 of the resolution of its input.
      variables: {"params", "batch_stats"}. They may be assigned again without recompiling.
      protocol: returned by `protocols.build`.
      align_corners: for every resize of the logits (True: official lineage).
      batch_size: images (or windows, if the protocol cuts them) in a pass; it is spread over this
        process's devices if it is a multiple of their number.
      max_programs: upper bound on compiled programs for the sizes given to `expect`;
        None: 6 for a protocol with one pass per image, else 20.
      scaling: how images are normalised.
      info: classes and palette, with which predictions draw themselves.
    """

    def __init__(
        self,
        model: nn.Module,
        variables: Variables,
        *,
        protocol: Protocol,
        align_corners: bool = False,
        batch_size: int = 1,
        max_programs: int | None = None,
        scaling: models.Scaling = models.IMAGENET,
        info: DatasetInfo | None = None,
    ):
        devices = jax.local_devices()
        spread = len(devices) > 1 and batch_size % len(devices) == 0
        mesh = Mesh(np.array(devices if spread else devices[:1]), ("batch",))
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._by_image = NamedSharding(mesh, PartitionSpec("batch"))
        self._folds = isinstance(model, models.Segmentor)
        self.model = folding.folded(model) if isinstance(model, models.Segmentor) else model
        self.variables = variables
        self.protocol = protocol
        self.align_corners = align_corners
        self.scaling = scaling
        self.batch_size = batch_size
        self.threshold: float | None = getattr(model, "threshold", None)
        self.info = info
        many = protocol.windows is None and len(protocol.scales((64, 64))) > 1
        self.max_programs = max_programs or (20 if many else 6)
        self.plan = Plan(protocol)
        self.is_planned = False
        self._weights = functools.lru_cache(KEPT_WEIGHTS)(self._make_weights)

    @property
    def variables(self) -> Variables:
        """The variables on the device, with BatchNorm folded into the convolutions."""
        return self._variables

    @variables.setter
    def variables(self, variables: Variables) -> None:
        used = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
        folded = folding.fold(used) if self._folds else used
        self._variables = jax.device_put(folded, self._everywhere)

    def expect(self, sizes: Iterable[Size]) -> None:
        """Plans padded sizes for images of these sizes; without it each new size may add one."""
        self.plan = Plan(self.protocol, sizes, self.max_programs)
        self.is_planned = True

    def announce(self, sizes: Sequence[Size], what: str = "image") -> str:
        """Plans as `expect` does, and returns a description of the protocol and its cost."""
        self.expect(sizes)
        cost = protocols.describe_cost(self.protocol, sizes, what)
        programs = protocols.counted(self.plan.programs, "program")
        chosen = "" if self.threshold is None else f"; one channel, decided at {self.threshold}"
        return (
            f"protocol {self.protocol.name}: {self.protocol.definition}{chosen}\n"
            f"{cost}, {programs} to compile"
        )

    def __call__(self, image: Image) -> UInt8[np.ndarray, "h w"]:
        """Class indices of one image of any size."""
        return self.predict(image).labels

    def predict(self, image: Image, *, confidence: bool = False) -> Prediction:
        """Class indices of one image and, if requested, their probabilities."""
        ((_, prediction),) = self.stream([(None, image)], confidence=confidence)
        return prediction

    def scores(self, image: Image) -> Float[np.ndarray, "h w k"]:
        """Logits at the image's own size, or mean probabilities if the protocol averages those."""
        height, width = image.shape[:2]
        if self.protocol.windows is not None:
            scores = windowed.scores(self, image, self.plan.group((height, width)))
            return np.asarray(scores)[:height, :width]
        group = self.plan.group((height, width))
        maps, rows, columns = self._maps(group, _pad([image], self.batch_size))
        softmax = self.protocol.merge == "probabilities"
        return np.asarray(_merge_scores(maps, rows, columns, softmax=softmax))[0, :height, :width]

    def stream(
        self, images: Iterable[tuple[Any, Image]], *, confidence: bool = False
    ) -> Iterator[tuple[Any, Prediction]]:
        """Yields (key, prediction) for every (key, image), not necessarily in the same order.

        Images wait until a batch of their padded size is full. The host prepares one batch while
        the device computes another.
        """
        running = None
        for group, batch in self._batches(images):
            result = self._start(group, [image for _, image in batch], confidence)
            if running is not None:
                yield from self._finish(*running)
            running = batch, result
        if running is not None:
            yield from self._finish(*running)

    def passes(self, sizes: Sequence[Size]) -> list[list[int]]:
        """Positions of the images that `stream` puts into one batch, if they come in order."""
        blank = enumerate(np.broadcast_to(np.uint8(0), size) for size in sizes)
        return [[i for i, _ in batch] for _, batch in self._batches(blank)]

    def _batches(self, images) -> Iterator[tuple[Group, list[tuple[Any, Image]]]]:
        size = 1 if self.protocol.windows is not None else self.batch_size
        return self.plan.batches(images, size)

    def _start(self, group: Group, images: list[Image], confidence: bool):
        """Dispatches a batch and returns without waiting for its result."""
        if self.protocol.windows is not None:
            return windowed.labels(self, images[0], group, confidence=confidence)
        choice = {
            "softmax": self.protocol.merge == "probabilities",
            "confidence": confidence,
            "threshold": self.threshold,
        }
        if len(group.scales) * len(self.protocol.flips) == 1:
            batch = _pad(images, self.batch_size)
            inputs = self._inputs(group, 0, False, batch)
            images_in, size = jax.device_put(inputs, self._by_image)
            rows, columns = self._weights(group, 0, False, _sizes(batch))
            return _predict(
                self.model,
                self.variables,
                images_in,
                size,
                [rows],
                [columns],
                scaling=self.scaling,
                **choice,
            )
        maps, rows, columns = self._maps(group, _pad(images, self.batch_size))
        return _merge(maps, rows, columns, **choice)

    def run(
        self, images: Num[np.ndarray, "b h w c"], size: Int[np.ndarray, "b 2"] | None
    ) -> Float[Array, "b h8 w8 k"]:
        """Logits at 1/8 resolution of a padded batch, on the device; see `network`."""
        images, size = jax.device_put((images, size), self._by_image)
        return _network(self.model, self.variables, images, size, scaling=self.scaling)

    def _maps(self, group: Group, images: list[Image]) -> tuple[list, list, list]:
        """Logits of every scale and flip, and their upsampling weights."""
        maps, rows, columns = [], [], []
        for scale in range(len(group.scales)):
            for flip in self.protocol.flips:
                inputs, size = self._inputs(group, scale, flip, images)
                maps.append(self.run(inputs, size))
                y, x = self._weights(group, scale, flip, _sizes(images))
                rows.append(y)
                columns.append(x)
        return maps, rows, columns

    def _inputs(self, group: Group, scale: int, flip: bool, images: list[Image]):
        """The padded batch, and the sizes before padding (None: nothing is padded)."""
        if self.protocol.keeps_fractions:
            images = [image.astype(np.float32) for image in images]
        shape = (len(images), *group.scales[scale], images[0].shape[2])
        batch = np.zeros(shape, images[0].dtype)
        sizes = np.zeros((len(images), 2), np.int32)
        for i, image in enumerate(images):
            scaled = resize_image(image, self.protocol.scales(image.shape[:2])[scale])
            height, width = scaled.shape[:2]
            batch[i, :height, :width] = scaled[:, ::-1] if flip else scaled
            sizes[i] = height, width
        return batch, None if group.exact else sizes

    def _make_weights(self, group: Group, scale: int, flip: bool, sizes: tuple[Size, ...]):
        """Upsampling weights for images of these sizes, on the device: matrices for the rows,
        taps for the columns."""
        padded = group.scales[scale]
        settings = {"align_corners": self.align_corners}
        rows, columns = [], []
        for own in sizes:
            scaled = self.protocol.scales(own)[scale]
            both = self.protocol.grid(scaled)
            rows += axis_matrices(both[0], scaled[0], own[0], -(-padded[0] // 8), **settings)
            (x,) = axis_matrices(
                both[1], scaled[1], own[1], -(-padded[1] // 8), flip=flip, **settings
            )
            columns.append(taps_of(x))
        height, width = group.padded_output
        stacked = stack(rows, height, len(sizes)), stack(columns, width, len(sizes))
        return jax.device_put(stacked, self._by_image)

    def _finish(
        self, batch: Sequence[tuple[Any, Image]], result
    ) -> Iterator[tuple[Any, Prediction]]:
        labels = np.asarray(result.labels)
        confidence = None if result.confidence is None else np.asarray(result.confidence)
        for i, (key, image) in enumerate(batch):
            height, width = image.shape[:2]
            sure = None if confidence is None else confidence[i, :height, :width]
            yield key, Prediction(labels[i, :height, :width], sure, image=image, info=self.info)


def _sizes(images: list[Image]) -> tuple[Size, ...]:
    return tuple(image.shape[:2] for image in images)


def _pad(images: list[Image], count: int) -> list[Image]:
    """Fills an incomplete batch by repeating an image, so that no other program is compiled."""
    return images + images[:1] * (count - len(images))


def build(
    config: ConfigDict,
    model: nn.Module,
    variables: Variables,
    *,
    protocol: str | None = None,
    info: DatasetInfo | None = None,
) -> Predictor:
    """The predictor of a configuration; `protocol` overrides `config.eval.protocol`.

    Raises:
      UserError: no such protocol.
    """
    name = protocol or config.eval.protocol
    ratios = tuple(config.eval.ratios)
    if name == "official_ms" and config.data.name == "cityscapes":
        ratios += (2.0, 2.25)  # as in the official test script
    return Predictor(
        model,
        variables,
        protocol=protocols.build(
            name,
            test_scale=tuple(config.data.test_scale),
            ratios=ratios,
            crop_size=tuple(config.eval.crop_size),
            stride=tuple(config.eval.stride),
            base_size=config.data.base_size,
        ),
        align_corners=config.model.lineage == "official",
        batch_size=config.eval.batch_size,
        scaling=models.scaling(config.data),
        info=info,
    )
