"""Small versions of photograph and label folders as people and annotation programs write them."""

import cv2
import numpy as np
from PIL import Image

COLORS = np.array([[0, 0, 0], [250, 50, 83], [51, 221, 255]], np.uint8)


def photo(seed=0, size=(24, 32)):
    """A smooth picture of many colours."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
    noise = rng.integers(-9, 10, (*size, 3))
    smooth = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def index(seed=0, size=(24, 32), classes=3):
    """A label map with areas of every class from 0 to classes - 1."""
    coarse = np.random.default_rng(seed).permutation(np.arange(12) % classes).reshape(3, 4)
    return cv2.resize(coarse.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)


def put(path, pixels, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette(np.asarray(palette, np.uint8).ravel().tolist())
    picture.save(path)


def lay(root, photos, labels, count=6, label=index, **options):
    """Writes `count` photographs and labels to the paths `photos` and `labels` ({}: number)."""
    for i in range(count):
        put(root / photos.format(i), photo(i))
        put(root / labels.format(i), label(i), **options)


def listed(root, *parts):
    """Reads the lists that were written: label by photograph."""
    texts = [(root / f"{part}.txt").read_text("utf-8") for part in parts or ("train", "val")]
    return dict(line.split("\t") for text in texts for line in text.splitlines())
