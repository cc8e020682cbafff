"""Label maps of Pascal Context from the annotations of PASCAL in Detail (trainval_merged.json)."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool

from fastfcn_jax.data.source import Encoded, read_file
from fastfcn_jax.errors import UserError

# Background and the 59 classes among the 459 categories; the index in this list is the label.
# fmt: off
CATEGORIES = (
    0, 2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113,
    115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326,
    347, 349, 354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458,
)
# fmt: on


@dataclass(frozen=True)
class DetailFiles:
    """Photographs with labels drawn from run-length codes; the `read` of an `EncodedSource`."""

    images: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    segments: tuple[tuple[tuple[int, str], ...], ...]  # per image: (label, run lengths)
    annotations: str

    def __call__(self, index: int) -> Encoded:
        label = np.zeros(self.sizes[index], np.uint8)
        for value, runs in self.segments[index]:
            label[decode_runs(runs, self.sizes[index])] = value
        path = self.images[index]
        name = f"{self.annotations} ({Path(path).name})"
        png = cv2.imencode(".png", label)[1].tobytes()
        return Encoded(read_file(path), png, path, name)

    def files(self) -> tuple[str, ...]:
        """All files that it reads."""
        return (*self.images, self.annotations)


def load(annotations: Path, images: Path, split: str) -> DetailFiles:
    """Reads the annotation file: several hundred megabytes of JSON, which is slow.

    Raises:
      UserError: it is not the file of PASCAL in Detail, or has no image of `split`.
    """
    try:
        content = json.loads(annotations.read_text("utf-8"))
        chosen = [i for i in content["images"] if i["phase"] == split]
        by_image: dict[int, list[tuple[int, str]]] = {i["image_id"]: [] for i in chosen}
        label_of = {category: label for label, category in enumerate(CATEGORIES)}
        for segment in content["annos_segmentation"]:  # a later one covers an earlier one
            if segment["image_id"] in by_image:
                runs = (label_of[segment["category_id"]], segment["segmentation"]["counts"])
                by_image[segment["image_id"]].append(runs)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{annotations}: not the trainval_merged.json of PASCAL in Detail ({error!r}); "
            "download it again."
        ) from error
    if not chosen:
        raise UserError(f"{annotations}: no image of split '{split}'; it has train and val.")
    return DetailFiles(
        tuple(str(images / i["file_name"]) for i in chosen),
        tuple((i["height"], i["width"]) for i in chosen),
        tuple(tuple(by_image[i["image_id"]]) for i in chosen),
        str(annotations),
    )


def decode_runs(code: str, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Decodes COCO's compressed run lengths, alternately outside and inside, in column order.

    A number is written in groups of 5 bits, least significant first, as characters from '0' on;
    bit 5 says that more groups follow. From the fourth run on, the number is the difference from
    the run two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in code.encode():
        group = character - 48
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(size[1], size[0]).T
