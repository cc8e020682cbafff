"""The best, the median and the worst images of an evaluation: photograph, label and prediction."""

import html
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Int, UInt8

from fastfcn_jax.data.source import Source
from fastfcn_jax.evaluation.evaluate import Result
from fastfcn_jax.evaluation.metrics import IGNORE_LABEL
from fastfcn_jax.evaluation.report import charts, frame, statistics
from fastfcn_jax.inference.predictor import Predictor
from fastfcn_jax.pictures import as_rgb, colorize

PICTURES = 3  # of each kind
WIDEST = 2048  # pixels of a picture's longer side; the page holds them all
THUMBNAIL = 400  # ... of the photograph below the errors
WRONG, IGNORED = (220, 30, 30, 255), (0, 0, 0, 255)


class Strip(NamedTuple):
    """One image, at most `WIDEST` pixels wide and high.

    size: (height, width) of the image itself.
    counts: its pixels of each class, as in `Result.counts`.
    """

    name: str
    score: float
    size: tuple[int, int]
    photo: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]
    counts: Int[np.ndarray, "3 k"]


class Gallery(NamedTuple):
    """Images that are told apart by their own mIoU; none is in two of the lists."""

    worst: Sequence[Strip] = ()
    median: Sequence[Strip] = ()
    best: Sequence[Strip] = ()


def make(predictor: Predictor, source: Source, result: Result, count: int = PICTURES) -> Gallery:
    """Predicts the worst, the median and the best images again, which the evaluation has not kept.

    Args:
      count: images of each kind, fewer if there are fewer.
    """
    scores = statistics.image_scores(result.counts)
    position = {name: i for i, name in enumerate(source.ids)}

    def strip(i: int) -> Strip:
        sample = source[position[result.ids[i]]]
        height, width = sample.label.shape
        prediction = predictor(sample.image)
        return Strip(
            sample.id,
            float(scores[i]),
            (height, width),
            frame.shrink(as_rgb(sample.image), WIDEST),
            frame.shrink(sample.label, WIDEST),
            frame.shrink(prediction, WIDEST),
            result.counts[i],
        )

    chosen = statistics.extremes(scores, count)
    return Gallery(*([strip(i) for i in indices] for indices in chosen))


def sections(
    gallery: Gallery, names: Sequence[str], palette: UInt8[np.ndarray, "k 3"]
) -> list[tuple[str, str]]:
    """(heading, HTML) of each list of images."""
    headed = (("Worst", gallery.worst), ("Median", gallery.median), ("Best", gallery.best))
    return [
        (f"{word} images", "".join(_strip(strip, names, palette) for strip in strips))
        for word, strips in headed
    ]


def _strip(strip: Strip, names: Sequence[str], palette: UInt8[np.ndarray, "k 3"]) -> str:
    grey = cv2.cvtColor(frame.shrink(strip.photo, THUMBNAIL), cv2.COLOR_RGB2GRAY)
    below = charts.data_url(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), photograph=True)
    height, width = strip.size
    shown = "" if strip.label.shape == strip.size else ", shown smaller"
    parts = "".join(
        f'<figure><span class="stack">{images}</span><figcaption>{name}</figcaption></figure>'
        for name, images in (
            ("image", _image("photo", strip.photo, "image")),
            ("label", _image("layer", colorize(strip.label, palette), "label")),
            ("prediction", _image("layer", colorize(strip.prediction, palette), "prediction")),
            ("errors", f'<img class="below" src="{below}" alt="">'
                       + _image("layer", errors(strip.label, strip.prediction), "errors")),
        )
    )  # fmt: skip
    return (
        f"<h3>{html.escape(strip.name)}, mIoU {strip.score:.1f} <small>{width} x {height} pixels"
        f'{shown}</small></h3><div class="strip">{parts}</div>{_legend(strip.counts, names)}'
    )


def errors(
    label: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 4"]:
    """Wrong pixels red, ignored ones black, the others transparent."""
    drawn = np.zeros((*label.shape, 4), np.uint8)
    drawn[label != prediction] = WRONG
    drawn[label == IGNORE_LABEL] = IGNORED
    return drawn


def _image(kind: str, picture: UInt8[np.ndarray, "h w c"], name: str) -> str:
    url = charts.data_url(picture, photograph=kind == "photo")
    return f'<img class="{kind}" src="{url}" alt="{name}">'


def _legend(counts: Int[np.ndarray, "3 k"], names: Sequence[str]) -> str:
    """The classes in label or prediction, those of most pixels first, each with its IoU."""
    right, labelled, predicted = counts
    union = labelled + predicted - right
    present = [int(k) for k in np.argsort(-union, kind="stable") if union[k] > 0]
    total = max(int(labelled.sum()), 1)
    items = "".join(
        f'<li class="k{k}" title="{100 * labelled[k] / total:.1f} % labelled, '
        f'{100 * predicted[k] / total:.1f} % predicted"><i class="swatch"></i>'
        f"{html.escape(names[k])} <small>IoU {100 * right[k] / union[k]:.0f}</small></li>"
        for k in present
    )
    return f'<ul class="legend">{items}</ul>'
