"""Generated street scenes with their labels: nothing to download, sample i always the same."""

import zlib
from dataclasses import dataclass, field
from typing import SupportsIndex

import numpy as np

from fastfcn_jax.data.datasets import street_scene
from fastfcn_jax.data.source import DatasetInfo, Sample, Source
from fastfcn_jax.errors import UserError

PALETTE = (  # Cityscapes' colours
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (107, 142, 35),
    (70, 130, 180),
    (153, 153, 153),
    (220, 220, 0),
    (220, 20, 60),
    (0, 0, 142),
)
INFO = DatasetInfo(
    "synthetic", street_scene.NAMES, np.array(PALETTE, np.uint8), tuple(range(len(PALETTE)))
)
SPLIT_SIZES = {"train": 512, "val": 64}
SIZE = (128, 256)  # height, width


@dataclass(frozen=True)
class StreetScenes:
    """Sample i is a pure function of (split, i, shape)."""

    split: str
    shape: tuple[int, int] = SIZE
    info: DatasetInfo = INFO
    ids: tuple[str, ...] = field(init=False)

    def __post_init__(self):
        count = SPLIT_SIZES[self.split]
        object.__setattr__(self, "ids", tuple(f"{self.split}_{i:04}" for i in range(count)))

    def __len__(self) -> int:
        return len(self.ids)

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of an image."""
        return self.shape

    def __getitem__(self, index: SupportsIndex) -> Sample:
        rng = np.random.default_rng((zlib.crc32(self.split.encode()), int(index)))
        return Sample(self.ids[index], *street_scene.Scene(rng, self.shape).draw())


def load(root: str, split: str) -> Source:
    """The scenes of `split`; `root` is not used.

    Raises:
      UserError: a split other than train and val.
    """
    if split not in SPLIT_SIZES:
        raise UserError(f"data: the generated scenes have train and val, no '{split}'.")
    return StreetScenes(split)
