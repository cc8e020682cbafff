"""Checkpoint folders: what lies in one, and saving and loading the model in it.

A folder is `DIR/model.json` (configuration, classes, palette, preprocessing, versions) and
`DIR/checkpoints/<step>/` with the items `model` (what prediction needs), `training` (what only
resuming needs, see `training.checkpoints`; absent in converted weights) and `meta` (checksums and
the loop's own notes).
"""

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax import files, stored
from fastfcn_jax.checkpoints import orbax_store
from fastfcn_jax.checkpoints.orbax_store import Damaged
from fastfcn_jax.config import experiment
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError

FORMAT = 1
WHICH = ("best", "latest")
MOST_CLASSES = 254  # a label is a byte, 255 is ignored
REMEDY = "mend it, or convert or train the model anew"


class LoadedModel(NamedTuple):
    """A trained or converted model; `variables` holds "params" and "batch_stats", NumPy arrays."""

    config: ConfigDict
    info: DatasetInfo
    variables: dict[str, Any]
    step: int


def save_model(
    folder: Path, variables: dict[str, Any], model_card: dict[str, Any], *, step: int = 0
) -> None:
    """Writes a checkpoint folder that holds a model alone, as conversion makes it.

    Args:
      variables: "params" and "batch_stats", nested dicts of arrays.
      model_card: see `model_card`.

    Raises:
      UserError: the folder cannot be written or already holds this step.
    """
    folder = Path(folder)
    if finished_steps(folder) or (folder / "run.json").is_file():
        raise UserError(f"{folder} already holds a checkpoint; give another output folder.")
    manager = orbax_store.open_manager(folder.absolute() / "checkpoints", orbax_store.keep_all())
    try:
        model = jax.tree.map(np.asarray, {k: variables[k] for k in ("params", "batch_stats")})
        orbax_store.write(manager, step, {"model": model}, {"format": FORMAT, "step": step})
        manager.wait_until_finished()
        files.write_json(folder / "model.json", model_card)
    except (OSError, ValueError) as error:
        raise files.unwritable(folder, error) from error
    finally:
        manager.close()


def load_model(folder: Path, which: str = "best") -> LoadedModel:
    """Loads the "best" (by validated mIoU, else the latest) or the "latest" model of a folder.

    Averaged weights (EMA) are what a run that keeps them returns. A damaged
    checkpoint is skipped with a warning for the next in line.

    Raises:
      UserError: the folder is not a checkpoint folder, nothing in it is whole, or `which` is
        neither word.
    """
    if which not in WHICH:
        raise UserError(f"which={which!r}: a model is loaded as {' or '.join(WHICH)}.")
    folder = Path(folder)
    card = read_card(folder)
    config, info = from_card(card, folder / "model.json")
    for step in _in_line(folder, which):
        try:
            variables = orbax_store.read_item(step_folder(folder, step), "model")
        except Damaged as damage:
            warn_of(step_folder(folder, step), damage)
            continue
        _check_count(folder, card, variables)
        return LoadedModel(config, info, variables, step)
    raise UserError(f"{folder}/checkpoints holds no whole checkpoint; train or convert one first.")


def step_folder(workdir: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return Path(workdir).absolute() / "checkpoints" / str(step)


def finished_steps(workdir: Path) -> list[int]:
    """The steps of all finished checkpoints, rising.

    Raises:
      UserError: the folder cannot be read.
    """
    folder = Path(workdir) / "checkpoints"
    try:
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}).") from error
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def best_step(workdir: Path) -> int | None:
    """The step of highest mIoU among the checkpoints that have one; the later of equal ones."""
    scored = []
    for step in finished_steps(workdir):
        with contextlib.suppress(Damaged):  # whoever reads it says so
            if (score := orbax_store.read_meta(step_folder(workdir, step))["score"]) is not None:
                scored.append((score, step))
    return max(scored)[1] if scored else None


def _in_line(folder: Path, which: str) -> list[int]:
    """Steps to load, the wanted one first, then from the latest on."""
    steps = finished_steps(folder)[::-1]
    best = best_step(folder) if which == "best" else None
    return steps if best is None else [best, *(step for step in steps if step != best)]


def verify(folder: Path, step: int) -> dict[str, str]:
    """Reads every array of a checkpoint; returns the checksum of each item.

    Raises:
      Damaged: something cannot be read back as it was written.
    """
    path = step_folder(folder, step)
    checksums = orbax_store.read_meta(path)["checksums"]
    for item in checksums:
        orbax_store.read_item(path, item)
    return checksums


def warn_of(folder: Path, damage: Damaged) -> None:
    """Says once, for all processes, that a checkpoint is passed over."""
    if jax.process_index() == 0:
        print(f"warning: {folder} is damaged and is skipped: {damage}", flush=True)


def model_card(config: ConfigDict, info: DatasetInfo, versions: dict[str, str]) -> dict[str, Any]:
    """What `model.json` says of a model, so that prediction needs nothing but its folder."""
    from fastfcn_jax.models import segmentor

    return {
        "format": FORMAT,
        "config": experiment.to_json(config),
        "dataset": {
            "name": info.name,
            "class_names": list(info.class_names),
            "palette": np.asarray(info.palette).tolist(),
        },
        "preprocessing": {"mean": segmentor.MEAN, "std": segmentor.STD, "channels": "RGB"},
        "versions": versions,
    }


def compare_classes(folder: Path, trained: DatasetInfo, tested: DatasetInfo) -> str:
    """Returns a note on the first class that the data set calls otherwise; "" if there is none.

    Raises:
      UserError: another number of classes, or the same ones in another order.
    """
    ours, theirs = trained.class_names, tested.class_names
    if len(ours) != len(theirs):
        raise UserError(
            f"{folder} was trained on {len(ours)} classes, but {tested.name} has "
            f"{len(theirs)}; give the configuration of its own data set."
        )
    pairs = enumerate(zip(ours, theirs, strict=True))
    differing = [(k, model, data) for k, (model, data) in pairs if model != data]
    if not differing:
        return ""
    first = "class {} is {!r} to the model and {!r} to the data set".format(*differing[0])
    if sorted(ours) == sorted(theirs):
        raise UserError(
            f"{folder} was trained on the classes of {tested.name} in another order: {first}; "
            "list the data set's classes in the model's order."
        )
    return f"note: {len(differing)} classes differ in name and are taken by number: {first}"


def read_card(folder: Path) -> dict[str, Any]:
    """Reads `model.json`.

    Raises:
      UserError: it is missing, broken, or of a later format.
    """
    path = Path(folder) / "model.json"
    if not path.is_file():
        raise UserError(_no_folder(Path(folder)))
    found = stored.read(path, {}, REMEDY).get("format")
    if found != FORMAT:
        raise UserError(f"{path} has format {found}; this version reads {FORMAT}.")
    return stored.read(path, _card_form(), REMEDY)


def _card_form() -> dict[str, Any]:
    from fastfcn_jax.models import segmentor

    def dataset(content: Any) -> str:
        parts = {"name": str, "class_names": [str], "palette": [_colour]}
        if wrong := stored.fault(content, parts):
            return wrong
        count, colours = len(content["class_names"]), len(content["palette"])
        if not 0 < count <= MOST_CLASSES:
            return f"class_names must be 1 to {MOST_CLASSES} names, not {count}"
        return "" if count == colours else f"palette has {colours} colours for {count} classes"

    def preprocessing(content: Any) -> str:
        built_in = {"mean": list(segmentor.MEAN), "std": list(segmentor.STD), "channels": "RGB"}
        return "" if content == built_in else f"must be {built_in}, which no key changes"

    return {
        "config": dict,
        "dataset": dataset,
        "preprocessing": preprocessing,
        "versions": dict,
    }


def _check_count(folder: Path, card: dict[str, Any], variables: dict[str, Any]) -> None:
    weights = variables["params"]["decode_head"]["conv_seg"]["bias"].shape[0]
    named = len(card["dataset"]["class_names"])
    if weights != named:
        raise UserError(
            f"{folder}/model.json: dataset.class_names has {named} names, but the weights are of "
            f"{weights} classes; {REMEDY}."
        )


def _colour(row: Any) -> str:
    whole = isinstance(row, list) and [type(value) for value in row] == [int] * 3
    if whole and all(0 <= value <= 255 for value in row):
        return ""
    return "must be three whole numbers from 0 to 255"


def _no_folder(path: Path) -> str:
    """Why this is not a checkpoint folder, and what to give where that can be told."""
    if path.is_file():
        return (
            f"{path} is a file, not a checkpoint folder; weights of PyTorch are converted first: "
            f"fastfcn convert --input {path} --config CONFIG --output DIR"
        )
    reason = f"{path} is not a checkpoint folder: model.json is missing"
    for parent in list(path.absolute().parents)[:2]:
        if (parent / "model.json").is_file():
            return f"{reason}; give the run's folder {parent}."
    return f"{reason}."


def from_card(card: dict[str, Any], source: Path) -> tuple[ConfigDict, DatasetInfo]:
    """Configuration and classes that a card describes.

    Raises:
      UserError: the configuration is of another version; `source` is the file that is named.
    """
    data = card["dataset"]
    return experiment.from_json(card["config"], source), DatasetInfo(
        data["name"], tuple(data["class_names"]), np.array(data["palette"], np.uint8)
    )
