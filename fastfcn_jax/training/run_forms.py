"""Decides in which forms a run computes its operations; a run keeps those that it began with."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
from ml_collections import ConfigDict

from fastfcn_jax import measured_forms, runtime
from fastfcn_jax.config import experiment
from fastfcn_jax.training import run_card


def decided(config: ConfigDict, workdir: Path, say: Callable[[str], None]) -> ConfigDict:
    """Returns the experiment with another `model.forms` than "auto"; all processes call this.

    A run that resumes keeps its forms, as others round differently; a new one takes those that were
    measured on the device of process 0. Tells which they are unless they are the shipped ones, and
    on a GPU without a measurement which command makes one.

    Raises:
      UserError: in every process, if run.json is invalid.
    """
    told = runtime.together(lambda: _choice(config, workdir))
    forms, note = json.loads(runtime.gather(json.dumps(told))[0])
    if note:
        say(note)
    config = config.copy_and_resolve_references()
    config.model.forms = forms
    return config


def _choice(config: ConfigDict, workdir: Path) -> tuple[str, str]:
    choice = measured_forms.chosen(config.model)
    if config.model.forms != "auto":
        return choice.forms, ""
    earlier = run_card.earlier(workdir)
    if earlier is None:
        # A CPU's shipped forms were measured on CPUs, a GPU's were read from its programs.
        told = choice.file is not None or jax.default_backend() != "cpu"
        return choice.forms, choice.note if told else ""
    kept = experiment.from_json(earlier["config"], workdir / "run.json").model.forms
    if kept == choice.forms:
        return kept, choice.note if choice.file is not None else ""
    return kept, (
        f"forms: {kept}, as this run began; for a new run they would be: {choice.forms} "
        f"({choice.file or 'those of the package'}); --config.model.forms=... changes them"
    )
