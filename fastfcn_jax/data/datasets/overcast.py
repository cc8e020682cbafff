"""A drawn street as on a grey day, which a model of photographs recognises better."""

import cv2
import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.data.datasets import street_scene

# Their texture says what they are; noise on a car or a wall does not.
ROUGH = (street_scene.ROAD, street_scene.TREE)
COLOR = 0.35  # of the drawing's; strong reds and blues are taken for signs
LIGHT = 0.45


def photograph(
    image: UInt8[np.ndarray, "h w 3"], label: UInt8[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Dims a scene, fades its colours, smooths it but for `ROUGH`, and clouds the sky."""
    drawn = image.astype(np.float32)
    smooth = _faded(cv2.GaussianBlur(drawn, (0, 0), 1.5), COLOR) * LIGHT
    clouds = _faded(cv2.GaussianBlur(drawn, (0, 0), 3), 0.1) * 1.3
    rough = np.isin(label, ROUGH)[..., None]
    sky = (label == street_scene.SKY)[..., None]
    mixed = np.where(rough, drawn * LIGHT, np.where(sky, clouds, smooth))
    return np.clip(cv2.GaussianBlur(mixed, (0, 0), 0.5), 0, 255).astype(np.uint8)


def _faded(image: np.ndarray, share: float) -> np.ndarray:
    grey = image.mean(axis=-1, keepdims=True)
    return (grey + share * (image - grey)).astype(np.float32)
