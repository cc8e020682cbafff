"""run.json: everything needed to repeat a run, and checks that a new start may resume it."""

import hashlib
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax import files, provenance, stored
from fastfcn_jax.config import experiment
from fastfcn_jax.data.source import Source
from fastfcn_jax.errors import UserError

# Changing one of these changes the arrays of the state, so that training cannot resume.
STRUCTURAL = (
    "model.lineage",
    "model.backbone",
    "model.base_width",
    "model.output_stride",
    "model.neck",
    "model.neck_channels",
    "model.head",
    "model.head_channels",
    "model.se_branch",
    "model.lateral",
    "model.auxiliary",
    "model.auxiliary_channels",
    "model.num_classes",
    "optim.name",
    "optim.freeze",
)
FINGERPRINT_SAMPLES = 8
CARD = {
    "id?": str,
    "config": dict,
    "overrides?": [str],
    "versions?": dict,
    "git?": (dict, type(None)),
    "data": {"name": str, "classes?": [str], "samples": int, "sha256": str},
    "starts": [{"step": int}],
}


def create(config: ConfigDict, source: Source) -> dict[str, Any]:
    """Creates the card of a run that starts now."""
    return {
        "id": secrets.token_hex(8),
        "config": experiment.to_json(config),
        "overrides": [a for a in sys.argv[1:] if a.startswith(("--config.", "--noconfig."))],
        "versions": provenance.versions(),
        "git": provenance.git_state(),
        "data": fingerprint(source),
        "starts": [],
    }


def check_resume(card: dict[str, Any], config: ConfigDict, workdir: Path) -> list[str]:
    """Lists the keys that differ from the run's configuration, as "key: old -> new".

    Raises:
      UserError: one of them changes the arrays of the state, or the run's configuration is invalid.
    """
    before = experiment.from_json(card["config"], workdir / "run.json")
    changed = {key: (a, b) for key, a, b in experiment.differences(before, config)}
    fatal = [key for key in changed if key in STRUCTURAL]
    if bool(before.train.ema_decay) != bool(config.train.ema_decay):
        fatal.append("train.ema_decay")
    if fatal:
        listed = ", ".join(
            f"config.{key}: {changed[key][0]!r} -> {changed[key][1]!r}" for key in fatal
        )
        raise UserError(
            f"the checkpoint in the workdir does not fit this configuration; differing keys: "
            f"{listed}; set them back or choose another --workdir."
        )
    return [f"{key}: {a!r} -> {b!r}" for key, (a, b) in changed.items()]


def check_classes(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises UserError if the run began with the same classes in another order.

    A name that occurs only now is taken for a renamed class.
    """
    began, here = before["data"].get("classes", ()), now["data"]["classes"]
    for index, (old, new) in enumerate(zip(began, here, strict=False)):
        if old != new and (old in here or new in began):
            raise UserError(
                f"class {index} of the data was '{old}' when this run began and is '{new}' now; "
                "put the classes back in their order, or choose another --workdir."
            )


def read(workdir: Path) -> dict[str, Any] | None:
    """Reads the card in a workdir; None if there is none.

    Raises:
      UserError: the file is invalid.
    """
    path = workdir / "run.json"
    if not path.is_file():
        return None
    return stored.read(path, CARD, "fix it or move it away")


def earlier(workdir: Path) -> dict[str, Any] | None:
    """The card of the run that a start in this workdir resumes; None if it begins a new one.

    Raises:
      UserError: the file is invalid.
    """
    return read(workdir) if (workdir / "checkpoints").is_dir() else None


def write(workdir: Path, card: dict[str, Any], step: int) -> None:
    """Adds this start to the card and writes run.json."""
    start = {
        "step": step,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": provenance.command(),
        "devices": [str(device.device_kind) for device in jax.devices()],
        "processes": jax.process_count(),
        "versions": provenance.versions(),
        "git": provenance.git_state(),
    }
    card["starts"].append(start)
    files.write_json(workdir / "run.json", card)


def fingerprint(source: Source) -> dict[str, Any]:
    """Identifies a data set by its classes and a hash of all ids and a few samples' pixels."""
    digest = hashlib.sha256(os.fsencode("\n".join(source.ids)))
    for index in np.linspace(0, len(source) - 1, FINGERPRINT_SAMPLES).astype(int):
        sample = source[int(index)]
        digest.update(np.ascontiguousarray(sample.image).data)
        digest.update(np.ascontiguousarray(sample.label).data)
    return {
        "name": source.info.name,
        "classes": list(source.info.class_names),
        "samples": len(source),
        "sha256": digest.hexdigest(),
    }
