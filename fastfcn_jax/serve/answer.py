"""Computes what is answered for a photograph: label map, confidence, shares of the classes."""

import base64
import threading
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Num, UInt8
from pydantic import BaseModel, Field

from fastfcn_jax import pictures
from fastfcn_jax.data import rasters
from fastfcn_jax.data.pixel_type import RGB
from fastfcn_jax.errors import UserError
from fastfcn_jax.inference.prediction import Prediction, with_palette
from fastfcn_jax.serve.desk import Occupation

MAX_PIXELS = 40_000_000
MAX_PROGRAMS = 64  # kept; without a limit each further image size would add to the memory
Output = Literal["json", "labels", "overlay", "confidence"]


class ClassShare(BaseModel):
    """A class that occurs in the image."""

    index: int = Field(description="its number in the label map")
    name: str
    color: str = Field(description="#rrggbb")
    share: float = Field(description="of the pixels, in percent")


class Answer(BaseModel):
    """What the model sees in one image."""

    width: int
    height: int
    classes: list[ClassShare] = Field(description="those that occur, largest first")
    mean_confidence: float = Field(description="mean probability of the pixels' classes, 0 to 1")
    labels: str = Field(description="base64 of a grey PNG of the image's size: class numbers")
    confidence: str = Field(
        description="base64 of a grey PNG of the image's size: 255 times each class's probability"
    )
    photo: str = Field(
        description="base64 of a PNG of the image, if a browser cannot show its kind; else empty"
    )


class Answerer:
    """Answers for one model; called from several threads.

    Args:
      model: `fastfcn_jax.api.Model` or an object like it: `info`, `pixel`, `predict(image)`.
    """

    def __init__(self, model, occupation: Occupation):
        self.model = model
        self._occupation = occupation
        self._busy = threading.Lock()

    def __call__(self, data: bytes, output: Output) -> Answer | bytes:
        """The answer, or for an output other than "json" a PNG.

        Raises:
          UserError: the upload is no image, or not of the model's type, or has too many pixels.
        """
        image = read(data, self.model.pixel)
        prediction = self._predict(image)
        info = self.model.info
        if output == "labels":
            return with_palette(prediction.labels, info.palette)
        if output == "confidence":
            return _png(_grey(prediction))
        if output == "overlay":
            clear = pictures.background(info.class_names)
            return _png(pictures.overlay(image, prediction.labels, info.palette, 0.5, clear))
        return self._describe(image, prediction)

    def _predict(self, image: Num[np.ndarray, "h w c"]) -> Prediction:
        with self._busy:  # one at a time: parallel predictions would not be faster
            self._occupation.begin("predicting")
            try:
                if getattr(self.model, "programs", 0) > MAX_PROGRAMS:
                    self.model.forget_programs()
                return self.model.predict(image)
            finally:
                self._occupation.end()

    def _describe(self, image: Num[np.ndarray, "h w c"], prediction: Prediction) -> Answer:
        labels, info = prediction.labels, self.model.info
        counts = np.bincount(labels.ravel(), minlength=info.num_classes)
        assert prediction.confidence is not None
        return Answer(
            width=labels.shape[1],
            height=labels.shape[0],
            classes=[
                ClassShare(
                    index=int(k),
                    name=info.class_names[k],
                    color=color(info.palette[k]),
                    share=round(100 * float(counts[k]) / labels.size, 2),
                )
                for k in sorted(np.flatnonzero(counts), key=lambda k: -counts[k])
            ],
            mean_confidence=round(float(prediction.confidence.mean()), 4),
            labels=_base64(_png(labels)),
            confidence=_base64(_png(_grey(prediction))),
            photo="" if self.model.pixel == RGB else _base64(_png(pictures.as_rgb(image))),
        )


def read(data: bytes, pixel) -> Num[np.ndarray, "h w c"]:
    """Decodes an upload.

    Raises:
      UserError: as `Answerer`.
    """
    height, width = rasters.size(data, "the upload", pixel)
    if height * width > MAX_PIXELS:
        raise UserError(
            f"{width}x{height} pixels are too many (limit {MAX_PIXELS // 10**6} megapixels)."
        )
    return rasters.image(data, "the upload", pixel)


def color(value: UInt8[np.ndarray, "3"]) -> str:
    """A colour as HTML writes it."""
    return "#{:02x}{:02x}{:02x}".format(*value)


def _grey(prediction: Prediction) -> UInt8[np.ndarray, "h w"]:
    assert prediction.confidence is not None
    return np.round(255 * prediction.confidence).astype(np.uint8)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _png(image: np.ndarray) -> bytes:
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", image)[1].tobytes()
