"""`fastfcn doctor --next`: which photographs to label next, uncertain ones that differ."""

import html
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from fastfcn_jax import text
from fastfcn_jax.doctor import trained
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation.report import frame
from fastfcn_jax.evaluation.run import output_folder
from fastfcn_jax.files import make_folder, write_json, write_text
from fastfcn_jax.pictures import as_rgb, overlay
from fastfcn_jax.predict import inputs
from fastfcn_jax.predict.inputs import Photograph
from fastfcn_jax.predict.settings import Settings
from fastfcn_jax.terminal.progress import track

GRID = 4  # a photograph is described by the mean probabilities in so many rows and columns
DUPLICATE = 0.02  # descriptions nearer than this, of at most 1, are of the same view
DEFINITION = (
    "uncertainty: mean entropy of the pixels' class probabilities, of at most 1. difference: the "
    "smallest Hellinger distance to a photograph above, of the mean class probabilities in a grid "
    f"of {GRID} x {GRID}. The most uncertain photograph comes first, then always the one with the "
    "largest uncertainty x difference."
)


class Choice(NamedTuple):
    """One photograph to label; `difference` of the first one is 1."""

    index: int
    uncertainty: float
    difference: float


class Suggestion(NamedTuple):
    """Photographs in the order in which to label them.

    failures: those that cannot be read.
    """

    photos: list[Photograph]
    choices: list[Choice]
    failures: list[str]


def suggest(
    folder: Path,
    photos: str,
    count: int,
    *,
    config: ConfigDict | None = None,
    output: Path | None = None,
) -> Suggestion:
    """Chooses `count` photographs and writes next.txt, next.json and next.html to `output`.

    Photographs that the model's data set has already are left out.

    Args:
      photos: file, folder or pattern.
      output: folder, FOLDER/next by default.

    Raises:
      UserError: no checkpoint, no photograph left, or no output folder.
    """
    model = trained.load(folder, config)
    output = make_folder(output or output_folder(model.given, model.folder, "next"))
    found = _find(photos)
    known = trained.labelled(model)
    left = [photo for photo in found if photo.path is None or photo.path.resolve() not in known]
    if len(left) < len(found):
        print(f"{len(found) - len(left)} of {len(found)} photographs are in the data set already")
    readable, uncertainty, described, failures = _look(model, left)
    if not readable:
        raise UserError(f"{photos}: no photograph that is not labelled yet can be read.")
    choices = choose(uncertainty, described, count)
    if len(choices) < min(count, len(readable)):
        print(f"left out as near duplicates of those listed: {len(readable) - len(choices)}")
    suggestion = Suggestion(readable, choices, failures)
    _write(output, model, suggestion)
    return suggestion


def _find(photos: str) -> list[Photograph]:
    if photos == inputs.STDIN:
        raise UserError("--next takes a folder, a file or a pattern of photographs.")
    try:
        return list(inputs.find(photos, settings=Settings(keep_suffix=True)))  # nothing can clash
    except UserError as error:
        raise UserError(str(error).replace("--input", "--next")) from error


def describe(
    p: Float[np.ndarray, "h w k"],
) -> tuple[float, Float[np.ndarray, " n"]]:
    """Uncertainty of a photograph, and square roots of the mean probabilities of its grid cells.

    The Euclidean distance of two descriptions is their Hellinger distance, at most 1.
    """
    h, w, k = p.shape
    entropy = -(p * np.log(p)).sum(-1).mean() / np.log(k)
    rows, columns = (np.linspace(0, n, GRID + 1).astype(int) for n in (h, w))
    cells = [
        p[y : max(y2, y + 1), x : max(x2, x + 1)].mean((0, 1))
        for y, y2 in itertools.pairwise(rows)
        for x, x2 in itertools.pairwise(columns)
    ]
    return float(entropy), np.sqrt(np.concatenate(cells) / (2 * GRID * GRID))


def choose(
    uncertainty: Sequence[float], described: Sequence[Float[np.ndarray, " n"]], count: int
) -> list[Choice]:
    """Greedy k-centre weighted by uncertainty: each new one is uncertain and far from the others.

    Near duplicates of what is chosen are never chosen, so that there may be fewer.
    """
    unsure, points = np.asarray(uncertainty), np.stack(described)
    far = np.ones(len(points))
    chosen: list[Choice] = []
    while len(chosen) < min(count, len(points)):
        gain = np.where(far >= DUPLICATE, np.maximum(unsure, 1e-9) * far, -1.0)
        best = int(gain.argmax())
        if gain[best] < 0:
            break
        chosen.append(Choice(best, float(unsure[best]), float(far[best])))
        far = np.minimum(far, np.linalg.norm(points - points[best], axis=1))
    return chosen


def _look(model: trained.Trained, photos: list[Photograph]):
    """The photographs that can be read, their uncertainties and descriptions, and the failures."""
    readable, uncertainty, described, failures = [], [], [], []
    for photo in track(iter(photos), len(photos), "looking at photographs"):
        try:
            image = photo.decode(model.pixel)
        except UserError as error:
            failures.append(str(error))
            continue
        unsure, description = describe(model.probabilities(image))
        readable.append(photo)
        uncertainty.append(unsure)
        described.append(description)
    return readable, uncertainty, described, failures


def _write(output: Path, model: trained.Trained, found: Suggestion) -> None:
    chosen = [(found.photos[c.index], c) for c in found.choices]
    names = [str(photo.path) for photo, _ in chosen]
    strips = "".join(_strip(model, photo, choice) for photo, choice in chosen)
    title = f"What to label next, by {model.folder.absolute().name}"
    intro = f"{len(found.photos)} photographs. {html.escape(DEFINITION)}"
    write_text(output / "next.html", frame.page(title, intro, [("Photographs", strips)]))
    write_text(output / "next.txt", "".join(f"{text.escaped(name)}\n" for name in names))
    listed = [
        {"photo": name, "uncertainty": c.uncertainty, "difference": c.difference}
        for name, (_, c) in zip(names, chosen, strict=True)
    ]
    write_json(output / "next.json", {"definition": DEFINITION, "photos": listed})
    table = Table("", "uncertainty", "difference", title="to label next")
    table.add_column("photograph", overflow="fold")
    for number, (name, (_, c)) in enumerate(zip(names, chosen, strict=True), start=1):
        shown = text.shown(name)
        table.add_row(str(number), f"{c.uncertainty:.3f}", f"{c.difference:.3f}", shown)
    Console().print(table)
    print(f"wrote {output / 'next.txt'}, next.json and next.html")


def _strip(model: trained.Trained, photo: Photograph, choice: Choice) -> str:
    """Photograph, prediction over it, and where the model is uncertain."""
    image = photo.decode(model.pixel)
    p = model.probabilities(image)
    labels = p.argmax(-1).astype(np.uint8)
    entropy = -(p * np.log(p)).sum(-1) / np.log(p.shape[-1])
    parts = {
        "photograph": as_rgb(image),
        "prediction": overlay(image, labels, model.info.palette),
        "uncertainty": _grey(entropy),
    }
    caption = (
        f"{photo.path}, uncertainty {choice.uncertainty:.3f}, difference {choice.difference:.3f}"
    )
    return frame.strip(caption, ((name, frame.shrink(part)) for name, part in parts.items()))


def _grey(share: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    level = np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(level[..., None], (*level.shape, 3)))
