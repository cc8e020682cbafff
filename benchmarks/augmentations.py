"""Draws every step of `data.augment` on one generated street scene: the picture in docs/.

python benchmarks/augmentations.py docs/augmentations.jpg
"""

import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fastfcn_jax import files, pictures
from fastfcn_jax.config import augment_steps, base
from fastfcn_jax.data import pipeline
from fastfcn_jax.data.datasets.synthetic import StreetScenes

SIZE, COLUMNS, BAR, EDGE = (96, 144), 7, 18, 4
# Steps shown with other options than their defaults, so that one sample shows what they do.
SHOWN = {
    "flip": "flip directions=diagonal",
    "rotate": "rotate degrees=25",
    "cutout": "cutout holes=3,3 size=0.2,0.2",
    "erase": "erase area=0.1,0.3",
    "clahe": "clahe clip=4",
    "gamma": "gamma range=1.8,1.8",
    "blur": "blur sigma=2,2",
    "jpeg": "jpeg quality=5,5",
    "mosaic": "mosaic size=96,144",
    "scale_steps": "scale_steps factors=1.5,1.5",
    "resize_steps": "resize_steps factors=1.5,1.5",
}


def sample(entry: str, source: StreetScenes) -> np.ndarray:
    """The image above its label, after one step and, unless that is one, a crop."""
    name = entry.split()[0]
    data = base.get_config().data
    data.update(crop_size=SIZE, resize_scale=SIZE[::-1], base_size=SIZE[0], flip=1.0, rotation=25.0)
    certain = f"{entry} prob=1" if "prob" in augment_steps.OPTIONS[name] else entry
    crop = () if name in augment_steps.CROPS else ("crop",)
    last = name not in augment_steps.BEFORE_CROP
    data.augment = (*crop, certain) if last else (certain, *crop)
    scene = source[0]
    augment = pipeline.build_augment(data, source)
    image, label, size = augment(scene.image, scene.label, np.random.default_rng(6))
    colored = pictures.colorize(label, source.info.palette)
    picture = np.vstack([image, colored])
    picture[size[0] : SIZE[0]] = 255
    picture[:, size[1] :] = 255
    bar = np.full((BAR, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(bar, name, (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(
        np.vstack([bar, picture]), 0, EDGE, 0, EDGE, cv2.BORDER_CONSTANT, value=(255, 255, 255)
    )


def main(output: str) -> None:
    source = StreetScenes("val", shape=SIZE)
    drawn = [sample(SHOWN.get(name, name), source) for name in augment_steps.OPTIONS]
    drawn += [np.full_like(drawn[0], 255)] * (-len(drawn) % COLUMNS)
    rows = [np.hstack(drawn[i : i + COLUMNS]) for i in range(0, len(drawn), COLUMNS)]
    picture = np.vstack(rows)[..., ::-1]
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    files.write_bytes(Path(output), encoded.tobytes())
    print(output)


if __name__ == "__main__":
    main(sys.argv[1])
