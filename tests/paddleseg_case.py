"""The small FastFCN of PaddleSeg that is compared with golden values: weights, images, labels.

Imported by `golden/make_paddleseg.py` beside Paddle as well, so it needs NumPy alone.
"""

import zlib

import numpy as np

WIDTH = 8  # of layer1's 3x3 convolutions; 64 in the published model
CHANNELS = 16  # of JPU and heads; 512 in the published model
BLOCKS = (1, 2, 2, 2)  # of the stages; (3, 4, 6, 3) in the published model
NUM_CLASSES = 12
SIZES = ((97, 131), (128, 192))  # with odd maps, and without
PHOTO = (75, 101)
RATIOS = (0.75, 1.0)  # PaddleSeg's guide has 1.25 as well
STEP_SAMPLE = 5  # golden values of each tensor's change in the training step


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of the state dict, drawn by its name in PaddleSeg."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.rpartition(".")[2]
    if leaf == "_variance":
        value = rng.uniform(0.5, 1.5, shape)
    elif leaf == "scale":
        value = rng.uniform(-1.0, 0.0, shape)
    elif leaf in ("_mean", "bias"):
        value = 0.1 * rng.normal(size=shape)
    elif len(shape) == 1:
        value = rng.uniform(0.5, 1.0, shape)
    elif leaf == "codewords":
        value = 0.3 * rng.normal(size=shape)
    else:
        value = rng.normal(size=shape) * np.prod(shape[1:]) ** -0.5
    return value.astype(np.float32)


def images(size: tuple[int, int], batch: int = 1) -> np.ndarray:
    """Normalised images (b, h, w, 3)."""
    return np.random.default_rng(size[0]).normal(size=(batch, *size, 3)).astype(np.float32)


def photo() -> np.ndarray:
    """A photograph of large and small structures, uint8 (h, w, 3)."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 200, (8, 11, 3)).repeat(10, 0).repeat(10, 1)[: PHOTO[0], : PHOTO[1]]
    return (coarse + rng.integers(0, 56, (*PHOTO, 3))).astype(np.uint8)


def training_batch() -> tuple[np.ndarray, np.ndarray]:
    """Two images and labels of 8x8 blocks, a fifth of which is 255."""
    size, rng = (64, 96), np.random.default_rng(1)
    blocks = rng.integers(0, NUM_CLASSES - 3, (2, size[0] // 8, size[1] // 8))
    blocks[rng.random(blocks.shape) < 0.2] = 255
    return images(size, 2), blocks.repeat(8, 1).repeat(8, 2)


def sample(value: np.ndarray, count: int = STEP_SAMPLE) -> np.ndarray:
    """`count` values of an array (or all), spread over it."""
    flat = value.reshape(-1)
    return flat[np.linspace(0, flat.size - 1, min(count, flat.size)).astype(int)]
