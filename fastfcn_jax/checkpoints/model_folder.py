"""Saves and loads the model of a checkpoint folder.

A folder contains `DIR/model.json` (configuration, classes, palette, preprocessing, versions) and
`DIR/checkpoints/<step>/` with the items `model` (needed for prediction), `training` (needed only to
resume, see `training.checkpointer`; absent in converted weights) and `meta` (checksums and notes of
the training loop).
"""

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax import files, stored
from fastfcn_jax.checkpoints import card_classes, fitting, orbax_store, preprocessing
from fastfcn_jax.checkpoints.orbax_store import Damaged
from fastfcn_jax.config import experiment
from fastfcn_jax.data.source import DatasetInfo, stored_values
from fastfcn_jax.errors import UserError

FORMAT = 1
WHICH = ("best", "latest")
REMEDY = "fix it, or convert or train the model again"


class LoadedModel(NamedTuple):
    """A trained or converted model; `variables` holds "params" and "batch_stats", NumPy arrays."""

    config: ConfigDict
    info: DatasetInfo
    variables: dict[str, Any]
    step: int
    score: float | None = None  # validation mIoU in percent


def save_model(
    folder: Path, variables: dict[str, Any], model_card: dict[str, Any], *, step: int = 0
) -> None:
    """Writes a checkpoint folder with a model but no training state, as conversion does.

    Args:
      variables: "params" and "batch_stats", nested dicts of arrays.
      model_card: see `model_card`.

    Raises:
      UserError: the folder cannot be written or already contains a checkpoint or a run.
    """
    folder = Path(folder)
    if finished_steps(folder) or (folder / "run.json").is_file():
        raise UserError(f"{folder} already contains a checkpoint; give another output folder.")
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
    """Loads the "best" (highest validation mIoU, else the latest) or "latest" model of a folder.

    Returns averaged weights (EMA) if the run kept them. Skips a damaged
    checkpoint with a warning and loads the next one.

    Raises:
      UserError: the folder is not a checkpoint folder, has no intact checkpoint, or `which` has
        another value.
    """
    if which not in WHICH:
        raise UserError(f"which={which!r}: must be {' or '.join(WHICH)}.")
    folder = Path(folder)
    card = read_card(folder)
    config, info = from_card(card, folder / "model.json")
    for step in _candidates(folder, which):
        try:
            variables = orbax_store.read_item(step_folder(folder, step), "model")
        except Damaged as damage:
            warn_of(step_folder(folder, step), damage)
            continue
        if config.model.num_classes != 1:  # one channel, for two classes
            _check_count(folder, card, variables)
        fitting.check(folder, config, info.num_classes, variables)
        meta = orbax_store.read_meta(step_folder(folder, step))
        return LoadedModel(config, info, variables, step, meta["score"])
    raise UserError(f"{folder}/checkpoints has no intact checkpoint; train or convert one first.")


def step_folder(workdir: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return Path(workdir).absolute() / "checkpoints" / str(step)


def finished_steps(workdir: Path) -> list[int]:
    """The steps of all finished checkpoints, in ascending order.

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
    """The step of the checkpoint with the highest mIoU (the latest of equals), None if no mIoU."""
    scored = []
    for step in finished_steps(workdir):
        with contextlib.suppress(Damaged):  # reported when the checkpoint itself is read
            if (score := orbax_store.read_meta(step_folder(workdir, step))["score"]) is not None:
                scored.append((score, step))
    return max(scored)[1] if scored else None


def _candidates(folder: Path, which: str) -> list[int]:
    """Steps to try: the requested one, then all others from the latest to the first."""
    steps = finished_steps(folder)[::-1]
    best = best_step(folder) if which == "best" else None
    return steps if best is None else [best, *(step for step in steps if step != best)]


def verify(folder: Path, step: int) -> dict[str, str]:
    """Reads every array of a checkpoint and returns the checksum of each item.

    Raises:
      Damaged: something is unreadable or differs from what was written.
    """
    path = step_folder(folder, step)
    checksums = orbax_store.read_meta(path)["checksums"]
    for item in checksums:
        orbax_store.read_item(path, item)
    return checksums


def warn_of(folder: Path, damage: Damaged) -> None:
    """Warns, on process 0 only, that a checkpoint is skipped."""
    if jax.process_index() == 0:
        print(f"warning: {folder} is damaged and is skipped: {damage}", flush=True)


def model_card(config: ConfigDict, info: DatasetInfo, versions: dict[str, str]) -> dict[str, Any]:
    """The content of `model.json`, with which the folder suffices for prediction."""
    return {
        "format": FORMAT,
        "config": experiment.to_json(config),
        "dataset": {
            "name": info.name,
            "class_names": list(info.class_names),
            "palette": np.asarray(info.palette, np.uint8).tolist(),
            **({} if info.values is None else {"values": list(info.values)}),
        },
        "preprocessing": preprocessing.described(config),
        "versions": versions,
    }


def compare_classes(folder: Path, trained: DatasetInfo, tested: DatasetInfo) -> str:
    """Returns a note on the first class whose name differs in the data set; "" if none does.

    Raises:
      UserError: the number of classes differs, or the same classes are in another order.
    """
    ours, theirs = trained.class_names, tested.class_names
    if len(ours) != len(theirs):
        raise UserError(
            f"{folder} was trained on {len(ours)} classes, but {tested.name} has "
            f"{len(theirs)}; give the configuration of the data set it was trained on."
        )
    pairs = enumerate(zip(ours, theirs, strict=True))
    differing = [(k, model, data) for k, (model, data) in pairs if model != data]
    if not differing:
        return ""
    first = "class {} is {!r} in the model and {!r} in the data set".format(*differing[0])
    if sorted(ours) == sorted(theirs):
        raise UserError(
            f"{folder} was trained on the classes of {tested.name} in another order: {first}; "
            "list the data set's classes in the model's order."
        )
    return f"note: {len(differing)} classes differ in name and are matched by number: {first}"


def read_card(folder: Path) -> dict[str, Any]:
    """Reads `model.json`.

    Raises:
      UserError: it is missing, invalid, or of another format.
    """
    path = Path(folder) / "model.json"
    if not path.is_file():
        raise UserError(_no_folder(Path(folder)))
    found = stored.read(path, {}, REMEDY).get("format")
    if found != FORMAT:
        raise UserError(f"{path} has format {found}; this version reads {FORMAT}.")
    return stored.read(path, _card_form(), REMEDY)


def _card_form() -> dict[str, Any]:
    return {
        "config": dict,
        "dataset": card_classes.fault,
        "preprocessing": dict,
        "versions": dict,
    }


def _check_count(folder: Path, card: dict[str, Any], variables: dict[str, Any]) -> None:
    weights = variables["params"]["decode_head"]["conv_seg"]["bias"].shape[0]
    named = len(card["dataset"]["class_names"])
    if weights != named:
        raise UserError(
            f"{folder}/model.json: dataset.class_names has {named} names, but the weights have "
            f"{weights} classes; {REMEDY}."
        )


def _no_folder(path: Path) -> str:
    """Says why this is not a checkpoint folder and, if possible, what to give instead."""
    if path.is_file():
        return (
            f"{path} is a file, not a checkpoint folder; convert PyTorch weights first: "
            f"fastfcn convert --input {path} --config CONFIG --output DIR"
        )
    reason = f"{path} is not a checkpoint folder: model.json is missing"
    for parent in list(path.absolute().parents)[:2]:
        if (parent / "model.json").is_file():
            return f"{reason}; give the run's folder {parent}."
    return f"{reason}."


def from_card(card: dict[str, Any], source: Path) -> tuple[ConfigDict, DatasetInfo]:
    """The configuration and classes stored in a model card.

    Args:
      card: content of `model.json`.
      source: the file, for error messages.

    Raises:
      UserError: the configuration is invalid, for example because another version wrote it.
    """
    data = card["dataset"]
    config = experiment.from_json(card["config"], source)
    if "preprocessing" in card:
        preprocessing.check(card["preprocessing"], config, source)
    return config, DatasetInfo(
        data["name"],
        tuple(data["class_names"]),
        np.array(data["palette"], np.uint8),
        stored_values(data.get("values")),
    )
