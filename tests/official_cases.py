"""The models of the official lineage that are compared with golden values, and their inputs."""

from typing import NamedTuple

import numpy as np

NUM_CLASSES = 59
IGNORE_LABEL = -1  # in the official code; 255 in ours
STEP_SAMPLE = 5  # golden values per tensor of its change in the SGD step
LOSS_PARTS = ({"aux": True, "se": False}, {"aux": False, "se": True}, {"aux": True, "se": True})


class Case(NamedTuple):
    """A model (head as in our configs), image size and batch; train: also make one SGD step."""

    head: str
    neck: str
    depth: int = 50
    size: tuple[int, int] = (97, 131)
    batch: int = 1
    train: bool = False
    lateral: bool = False  # the head fuses c3 and c4; it needs their size, so no JPU

    @property
    def name(self) -> str:
        return f"{self.head}_{self.neck}_r{self.depth}{'_lateral' * self.lateral}"


CASES = (
    *(Case("psp", neck) for neck in ("jpu_x", "none")),
    Case("fcn", "jpu_x", train=True),
    Case("fcn", "none"),
    Case("enc", "jpu", size=(96, 128), batch=4, train=True),
    Case("enc", "jpu_x"),
    Case("enc", "none"),
    Case("psp", "jpu", size=(96, 128), batch=4, train=True),
    Case("fcn", "jpu"),
    Case("aspp", "jpu", size=(320, 344), train=True),
    Case("aspp", "jpu_x"),
    Case("aspp", "none"),
    Case("enc", "jpu", 101),
    Case("enc", "none", train=True, lateral=True),
)


def images(case: Case) -> np.ndarray:
    """Returns normalised images (b, h, w, 3)."""
    shape = (case.batch, *case.size, 3)
    return np.random.default_rng(case.size[0]).normal(size=shape).astype(np.float32)


def labels(case: Case) -> np.ndarray:
    """Returns labels (b, h, w) of 12 classes in blocks, a fifth of them ignored (-1)."""
    rng = np.random.default_rng(1)
    h, w = case.size
    blocks = rng.integers(0, 12, (case.batch, h // 8 + 1, w // 8 + 1))
    blocks[rng.random(blocks.shape) < 0.2] = IGNORE_LABEL
    return blocks.repeat(8, 1).repeat(8, 2)[:, :h, :w]


def training_batch(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels for the SGD step; small, because float64 convolutions are slow."""
    small = case._replace(size=(64, 96), batch=2)
    return images(small), labels(small)


def sample(value: np.ndarray, name: str, count: int = 100) -> np.ndarray:
    """Returns up to `count` values of an array, at positions determined by its name."""
    rng = np.random.default_rng(len(name))
    flat = value.reshape(-1)
    return flat[rng.choice(flat.size, min(count, flat.size), replace=False)]


def counted(key: str) -> bool:
    """Whether our models have a counterpart of an entry of the official state dict."""
    unused = key.startswith("pretrained.fc.") or key.endswith("num_batches_tracked")
    return not unused


def part_name(parts: dict) -> str:
    return "".join(f"_{name}" for name, on in parts.items() if on)
