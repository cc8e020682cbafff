"""Builds all parts of a run from its configuration, or restores its state from a checkpoint."""

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from fastfcn_jax import provenance, runtime
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config import experiment
from fastfcn_jax.data import datasets, pipeline, sets
from fastfcn_jax.data.source import Source
from fastfcn_jax.errors import UserError
from fastfcn_jax.inference import predictor
from fastfcn_jax.terminal import console
from fastfcn_jax.training import (
    assembly,
    checkpointer,
    metrics_log,
    run_card,
    run_forms,
    run_outputs,
    sinks,
    step,
    stored_state,
    strategy,
)
from fastfcn_jax.training import state as states
from fastfcn_jax.training.callbacks import Callbacks
from fastfcn_jax.training.local_checkpoints import LocalCheckpoints


@dataclass
class Run:
    """A training run between two steps; the loop updates `state` and `step`."""

    config: ConfigDict
    workdir: Path
    source: Source
    validation: Source | None
    model: nn.Module
    strategy: strategy.Strategy
    train_step: step.TrainStep
    numbers: Callable[[int], step.Numbers]
    predictor: predictor.Predictor
    state: states.TrainState
    step: int
    console: console.Console
    checkpoints: checkpointer.Checkpoints
    meter: metrics_log.Meter
    records: metrics_log.Records
    tensorboard: sinks.TensorBoard | None
    callbacks: Callbacks
    extra_sinks: list[Any] = field(default_factory=list)

    def close(self) -> None:
        """Closes the terminal line and the sinks; the loop closes the checkpoints."""
        self.console.close()
        for sink in (self.records, self.tensorboard, *self.extra_sinks):
            if sink is not None:
                with contextlib.suppress(OSError):  # a full disk has already been reported
                    sink.close()


def prepare(config: ConfigDict, workdir: Path, callbacks: Callbacks) -> Run:
    """Builds or restores a run; its records go to `callbacks` too.

    Raises:
      UserError: the data, workdir or configuration are invalid.
    """
    cache = runtime.cache_compilations()
    terminal = console.Console(
        config.train.steps, config.train.batch_size * config.train.accumulate
    )
    try:
        return _prepare(config, workdir, callbacks, terminal, cache)
    except BaseException as error:
        terminal.close()
        if not isinstance(error, OSError):
            raise
        where = error.filename2 or error.filename or workdir
        raise UserError(
            f"{where}: {error.strerror or error}; fix that or choose another --workdir."
        ) from error


def _prepare(
    config: ConfigDict,
    workdir: Path,
    callbacks: Callbacks,
    terminal: console.Console,
    cache: Path | None,
) -> Run:
    metrics_log.read(workdir / "metrics.jsonl")  # fails on a bad line before anything is written
    runtime.agree(_facts(config))
    plan = strategy.choose(config.train.strategy, config.train.batch_size)
    terminal.say(f"devices: {_devices(plan)}; strategy: {plan.name}")
    if runtime.has_unused_gpu():
        terminal.say("note: " + runtime.UNUSED_GPU)
    terminal.say(f"compiled programs are kept in {cache}" if cache else "compilations are not kept")
    asked, config = config, run_forms.decided(config, workdir, terminal.say)
    source, validation = runtime.together(lambda: open_sources(config, terminal))
    card = runtime.together(lambda: _card(config, workdir, source, terminal))
    runtime.agree({"training data": card["data"], "validation data": _outline(validation)})
    terminal.say("building the model and its initial weights")
    built = runtime.together(lambda: assembly.build(config, source, plan))
    state, notes = built.state, built.notes
    card["parameters"] = sum(int(x.size) for x in jax.tree.leaves(state.params))
    card["id"] = runtime.gather(card["id"])[0]
    checkpoints = _open_checkpoints(config, workdir, card["id"])
    restored = checkpoints.restore_latest(state)
    start, pending = 0, {}
    if restored is not None:
        state, pending = restored.state, restored.notes["pending"]
        start = int(state.step)
        notes = _resumes(start, restored.source.parent, config, workdir)
    if jax.process_count() > 1:
        runtime.agree({"state to start from": stored_state.checksums(state)})
    outputs = runtime.together(
        lambda: run_outputs.open_outputs(asked, workdir, source, card, start, terminal.curves)
    )
    outputs.records.also(callbacks.record)
    for tracker in outputs.trackers:
        callbacks.add(tracker)
    for note in (*notes, outputs.records.note(len(pending.get("finite", ())))):
        if note:
            terminal.say(note)
    return Run(
        config=config,
        workdir=workdir,
        source=source,
        validation=validation,
        model=built.model,
        strategy=plan,
        train_step=built.train_step,
        numbers=built.numbers,
        predictor=predictor.build(config, built.model, state.variables),
        state=plan.put_state(state),
        step=start,
        console=terminal,
        checkpoints=checkpoints,
        records=outputs.records,
        meter=metrics_log.Meter(pending),
        tensorboard=outputs.tensorboard,
        callbacks=callbacks,
        extra_sinks=outputs.extra,
    )


def _open_checkpoints(config: ConfigDict, workdir: Path, run: str) -> checkpointer.Checkpoints:
    local, root = None, config.train.local_checkpoints
    if root:
        local = runtime.together(lambda: LocalCheckpoints(Path(root), run))
    return checkpointer.Checkpoints(workdir, keep_every=config.train.keep_every, local=local)


def _resumes(start: int, folder: Path, config: ConfigDict, workdir: Path) -> list[str]:
    """Says from which checkpoint, in `folder`, the training goes on."""
    notes = [f"resuming from the checkpoint of step {start} in {workdir}"]
    if folder != model_folder.step_folder(workdir, start).parent:
        notes = [f"resuming from the local checkpoint of step {start} in {folder}"]
    if start >= config.train.steps:
        notes.append(
            f"all config.train.steps={config.train.steps} are done, nothing is left to train; "
            "raise config.train.steps, or choose another --workdir for a new run"
        )
    return notes


def _facts(config: ConfigDict) -> dict[str, Any]:
    """Everything that must be the same in all processes of a training, by name."""
    stored: dict[str, Any] = experiment.to_json(config)
    for key in experiment.PER_HOST:
        stored["data"].pop(key)
    # The folders may differ, but either all processes have one or none: they restore together.
    stored["train"]["local_checkpoints"] = bool(config.train.local_checkpoints)
    stored["data"]["sets"] = [sets.parse(entry)[:-1] for entry in config.data.sets]
    settings = {
        f"config.{s}.{k}": v for s, x in stored.items() if s != "seed" for k, v in x.items()
    }
    packages = {f"version of {name}": version for name, version in provenance.versions().items()}
    return {
        "config.seed": config.seed,
        **settings,
        **packages,
        "program (files of fastfcn_jax)": provenance.program(),
    }


def _outline(source: Source | None) -> list[Any]:
    """Identifies a data set without opening an image."""
    if source is None:
        return []
    ids = hashlib.sha256(os.fsencode("\n".join(source.ids))).hexdigest()
    return [source.info.name, list(source.info.class_names), len(source), ids]


def open_sources(config: ConfigDict, terminal: console.Console) -> tuple[Source, Source | None]:
    """Opens the training data, and the validation data unless there is no evaluation."""
    d = config.data
    where = f"{d.name} in {d.root or 'memory'}"
    terminal.say(
        f"data: the mixture of data.sets; evaluated on {where}" if d.sets else f"data: {where}"
    )
    source = sets.load_training(d, cached=True, say=terminal.say)
    validation = datasets.open_split(d, d.val_split) if config.train.eval_every else None
    counted = "none" if validation is None else len(validation)
    terminal.say(f"{len(source)} training images, {counted} for validation")
    if note := pipeline.left_out(d):
        terminal.say(note)
    return source, validation


def _card(config, workdir: Path, source: Source, terminal) -> dict[str, Any]:
    """Creates the card of this run and reports what changed since the run began."""
    earlier = run_card.earlier(workdir)
    card = run_card.create(config, source)
    if earlier is not None:
        changed = run_card.check_resume(earlier, config, workdir)
        if earlier["data"] != card["data"]:
            run_card.check_classes(earlier, card)
            changed.append("the training data themselves")
        if changed:
            terminal.say("changed since this run began: " + "; ".join(changed))
        card["starts"] = earlier["starts"]
        card["id"] = earlier.get("id", card["id"])
    return card


def _devices(plan: strategy.Strategy) -> str:
    kinds = [device.device_kind for device in plan.devices]
    counted = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    processes = jax.process_count()
    return counted if processes == 1 else f"{counted} in {processes} processes"


def prediction_variables(state: states.TrainState) -> dict[str, Any]:
    """The variables used for prediction, copied to this process's first device."""
    return jax.device_put(strategy.to_host(state.variables), jax.local_devices()[0])
