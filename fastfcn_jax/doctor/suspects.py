"""`fastfcn doctor --suspects`: the labels that a trained model takes for errors, as a report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from fastfcn_jax.data.source import Source
from fastfcn_jax.doctor import trained
from fastfcn_jax.doctor.contradictions import DEFINITION, Photo, Ranking, Region, rank
from fastfcn_jax.evaluation.report import frame
from fastfcn_jax.evaluation.run import output_folder
from fastfcn_jax.files import make_folder, write_json, write_text
from fastfcn_jax.pictures import as_rgb, colorize

AROUND = 64  # pixels that a picture of a region shows around it
WHITE, BLACK = (255, 255, 255), (0, 0, 0)

Sources = Mapping[str, Source]


def review(
    folder: Path, count: int, *, config: ConfigDict | None = None, output: Path | None = None
) -> Ranking:
    """Ranks the labels of a model's training and validation split, and writes a table and a report.

    Writes suspects.json and suspects.html to `output` (default: FOLDER/suspects).

    Args:
      count: images and regions to list.

    Raises:
      UserError: no checkpoint, no data, or no output folder.
    """
    model = trained.load(folder, config)
    sources = dict(model.splits())
    output = make_folder(output or output_folder(model.given, model.folder, "suspects"))
    found = rank(model.probabilities, sources, count)
    write_json(output / "suspects.json", _content(found, sources, model.info.class_names))
    write_text(output / "suspects.html", _page(model, sources, found))
    _print(found, sources, model.info.class_names)
    print(f"wrote {output / 'suspects.json'} and suspects.html")
    return found


def _content(found: Ranking, sources: Sources, names: tuple[str, ...]) -> dict:
    def place(item: Photo | Region) -> dict[str, Any]:
        source = sources[item.split]
        files = trained.files_of(source)
        label = {"label": files.labels[item.index]} if files else {}
        return {"split": item.split, "id": source.ids[item.index], **label}

    return {
        "definition": DEFINITION,
        "examined": found.examined,
        "images": [
            {**place(p), "score": p.score, "mean": p.mean, "pixels": p.pixels} for p in found.photos
        ],
        "regions": [
            {
                **place(r),
                "labelled": names[r.labelled],
                "predicted": names[r.predicted],
                "box": list(r.box),
                "score": r.score,
                "mean": r.mean,
                "pixels": r.pixels,
            }
            for r in found.regions
        ],
    }


def _print(found: Ranking, sources: Sources, names: tuple[str, ...]) -> None:
    console = Console()
    for title, items in (("images", found.photos), ("regions", found.regions)):
        table = Table("score", "mean", "pixels", "split", title=f"suspicious {title}")
        table.add_column("image", overflow="fold")
        if items is found.regions:
            for head in ("labelled", "predicted", "at x, y"):
                table.add_column(head)
        for item in items:
            cells = [f"{item.score:.4f}", f"{item.mean:.2f}", str(item.pixels), item.split]
            cells.append(sources[item.split].ids[item.index])
            if isinstance(item, Region):
                cells += [names[item.labelled], names[item.predicted], "{}, {}".format(*item.box)]
            table.add_row(*cells)
        console.print(table)
    if not found.regions:
        print(f"the model contradicts none of the {found.examined} labels with confidence")


def _page(model: trained.Trained, sources: Sources, found: Ranking) -> str:
    names = model.info.class_names
    images = [(p, f"score {p.score:.4f}, mean {p.mean:.2f}", None) for p in found.photos]
    regions = [
        (r, f"{names[r.labelled]} predicted as {names[r.predicted]}, score {r.score:.4f}, mean "
            f"{r.mean:.2f}, {r.pixels} pixels", r.box)
        for r in found.regions
    ]  # fmt: skip
    sections = []
    for title, items in (("Regions", regions), ("Images", images)):
        strips = [_strip(model, sources[item.split], item, said, box) for item, said, box in items]
        sections.append((title, "".join(strips)))
    intro = (
        f"{found.examined} labelled images. {DEFINITION} What the model learned by heart it does "
        "not contradict: errors in training labels may be missing."
    )
    return frame.page(f"Suspicious labels by {model.folder.absolute().name}", intro, sections)


def _strip(
    model: trained.Trained,
    source: Source,
    item: Photo | Region,
    said: str,
    box: tuple[int, int, int, int] | None,
) -> str:
    """Photograph, label and prediction, around the region if there is one."""
    sample = source[item.index]
    predicted = model.predictor(sample.image)
    parts = [
        as_rgb(sample.image),
        colorize(sample.label, source.info.palette),
        colorize(predicted, source.info.palette),
    ]
    if box is not None:
        parts = [_around(part, box) for part in parts]
    caption = f"{item.split}: {sample.id}, {said}"
    names = ("photograph", "label", "prediction")
    return frame.strip(caption, zip(names, map(frame.shrink, parts), strict=True))


def _around(
    picture: UInt8[np.ndarray, "h w 3"], box: tuple[int, int, int, int]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The region and what is around it, with a frame."""
    x, y, width, height = box
    framed = picture.copy()
    for margin, color in ((1, WHITE), (2, BLACK)):  # seen on any colour
        start, end = (x - margin, y - margin), (x + width - 1 + margin, y + height - 1 + margin)
        cv2.rectangle(framed, start, end, color, 1)
    top, left = max(y - AROUND, 0), max(x - AROUND, 0)
    return np.ascontiguousarray(framed[top : y + height + AROUND, left : x + width + AROUND])
