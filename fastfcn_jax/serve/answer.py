"""Computes what the page shows for a photograph: label maps as PNG, and the share of each class."""

import base64

import cv2
import numpy as np

from fastfcn_jax import pictures
from fastfcn_jax.data import rasters
from fastfcn_jax.data.pixel_type import RGB
from fastfcn_jax.errors import UserError

MAX_PIXELS = 40_000_000


def answer(model, data: bytes) -> dict:
    """What the page shows for one uploaded photograph.

    Raises:
      UserError: the upload is not an image, or not of the model's type, or has too many pixels.
    """
    height, width = rasters.size(data, "the upload", model.pixel)
    if height * width > MAX_PIXELS:
        raise UserError(
            f"{width}x{height} pixels are too many (limit {MAX_PIXELS // 10**6} megapixels)."
        )
    image = rasters.image(data, "the upload", model.pixel)
    prediction = model.predict(image)
    labels, info = prediction.labels, model.info
    counts = np.bincount(labels.ravel(), minlength=info.num_classes)
    present = sorted(np.flatnonzero(counts), key=lambda k: -counts[k])
    return {
        "width": width,
        "height": height,
        "labels": _png(labels),
        # A browser does not show other images itself.
        "photo": "" if model.pixel == RGB else _png(pictures.as_rgb(image)),
        "colors": _png(pictures.colorize(labels, info.palette)),
        "confidence": round(float(prediction.confidence.mean()), 4),
        "classes": [
            {
                "name": info.class_names[k],
                "color": "#{:02x}{:02x}{:02x}".format(*info.palette[k]),
                "share": round(100 * counts[k] / labels.size, 2),
            }
            for k in present
        ],
    }


def _png(image: np.ndarray) -> str:
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()
