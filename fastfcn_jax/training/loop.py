"""The training loop: all input and output around the pure training step."""

import contextlib
import shlex
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax import peers, provenance, runtime
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config import experiment
from fastfcn_jax.data import malloc, pipeline
from fastfcn_jax.data.source import Source
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation.evaluate import evaluate
from fastfcn_jax.evaluation.report import document, paired
from fastfcn_jax.training import setup, strategy, validation
from fastfcn_jax.training import workdir as workdirs
from fastfcn_jax.training.callbacks import FAILED, FINISHED, STOPPED, Callbacks, check
from fastfcn_jax.training.interrupt import Agreement, Interrupt
from fastfcn_jax.training.setup import Run

IN_FLIGHT = 2  # metrics are read this many steps late, so that the device never waits for the host


def train(config: ConfigDict, workdir: Path, callbacks: Sequence[Any] = ()) -> int:
    """Trains to the last step or until interrupted; the same call again resumes the training.

    Writes checkpoints/, model.json, metrics.jsonl, run.json, counts.npz, report.html, tensorboard/
    and pictures/ to `workdir`. On SIGINT or SIGTERM it finishes the step and saves a checkpoint.
    `train.deterministic` takes effect only before JAX starts; `training.start.train` sees to it.

    Returns:
      The exit status: 0, or 128 plus the signal's number if a signal ended the training.

    Raises:
      UserError: the data, workdir or configuration are invalid, or the loss is not
        finite; the latest good checkpoint is kept.
    """
    workdir = Path(workdir)
    check(callbacks)
    with Interrupt() as interrupt, workdirs.hold(workdir):
        called = Callbacks(callbacks)
        run = setup.prepare(config, workdir, called)
        outcome = FAILED
        try:
            try:
                _train(run, interrupt)
            except BaseException as error:
                if peers.fails_everywhere(error):  # closing waits for the other processes
                    with contextlib.suppress(Exception):  # would hide the error that ended the loop
                        run.checkpoints.close()
                raise
            run.checkpoints.close()  # waits for a save in progress
            outcome = FINISHED if run.step >= config.train.steps else STOPPED
            if outcome == FINISHED and run.checkpoints.local is not None:
                run.checkpoints.local.discard()
        except UserError as error:
            raise UserError(f"{error} {_last_good(run)}") from error
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise UserError(f"{error.strerror or error}{where}. {_last_good(run)}") from error
        finally:
            called.end(run.step, outcome)
            run.close()
        return _farewell(run, interrupt)


def _train(run: Run, interrupt: Interrupt) -> None:
    t = run.config.train
    names = run.source.info.class_names
    run.callbacks.start(run.workdir, experiment.to_json(run.config), names, run.step, t.steps)
    agreement = Agreement()
    in_flight: deque = deque()
    if run.step > 0 and due(run.step, t.eval_every, t.steps):
        if (done := _evaluation(run)) is None:
            _validate_and_save(run, interrupt)  # the run was stopped before or while evaluating
        else:
            _save(run, miou=done["mIoU"])  # perhaps stopped after logging, before storing the score
    elif run.step > 0 and t.local_checkpoints:
        _save(run)  # from a local copy, which another host does not have
    batches = device_batches(run.config, run.source, run.strategy, run.step)
    first = True
    while run.step < t.steps and not _stopped_early(run):
        if agreement.stop(interrupt.requested or run.callbacks.asked_to_stop):
            break
        started = time.monotonic()
        batch, indices = next(batches)
        run.console.waited_for_data(time.monotonic() - started)
        arguments = (run.state, batch, run.numbers(run.step))
        done = _first_step(run, arguments, interrupt) if first else run.train_step(*arguments)
        if done is None:
            return  # nothing has changed since the checkpoint that the run began with
        run.state, metrics = done
        run.step += 1
        in_flight.append((run.step, metrics, indices))
        if first:
            jax.block_until_ready(run.state)
            malloc.release_freed()
            run.console.say(f"the first step took {time.monotonic() - started:.1f} s")
            run.console.restart_clock()
            first = False
        run.checkpoints.check()
        _read_metrics(run, in_flight, leave=IN_FLIGHT)
        evaluates = due(run.step, t.eval_every, t.steps)
        if evaluates or due(run.step, t.save_every, t.steps):
            _read_metrics(run, in_flight, leave=0)
            _validate_and_save(run, interrupt) if evaluates else _save(run)
        elif t.local_checkpoints and due(run.step, t.local_save_every, 0):
            _read_metrics(run, in_flight, leave=0)
            _save_locally(run)
    _read_metrics(run, in_flight, leave=0)
    _save(run)


def _first_step(run: Run, arguments: tuple, interrupt: Interrupt) -> tuple | None:
    """The first step, which compiles; None if a signal ended the training before it."""
    run.console.say("compiling the training step (minutes for a large model, once)")
    if jax.process_count() > 1:  # the others would wait for this one: all stop after the step
        return run.train_step(*arguments)
    return interrupt.wait(lambda: run.train_step(*arguments))


def due(step: int, every: int, last: int) -> bool:
    """Whether `step` is a multiple of `every` or the last step; never if `every` is 0."""
    return every > 0 and (step % every == 0 or step == last)


def device_batches(
    config: ConfigDict, source: Source, plan: strategy.Strategy, start_step: int
) -> Iterator[tuple[dict, np.ndarray]]:
    """Yields batches on the devices, each with the indices of this process's samples in it."""
    accumulate = config.train.accumulate
    shard = (jax.process_index(), jax.process_count())
    batches = pipeline.build_train(config, source, start_step=start_step * accumulate, shard=shard)
    while True:
        micro = [next(batches) for _ in range(accumulate)]
        batch = micro[0]
        if accumulate > 1:
            batch = {name: np.stack([part[name] for part in micro]) for name in batch}
        indices = batch.pop("index").reshape(-1)
        yield plan.put_batch(batch, accumulate=accumulate), indices


def _read_metrics(run: Run, in_flight: deque, *, leave: int) -> None:
    """Reads the metrics of all but the last `leave` steps and logs a record if one is due."""
    while len(in_flight) > leave:
        step, metrics, indices = in_flight.popleft()
        values = {name: float(x) for name, x in strategy.to_host(metrics).items()}
        run.console.stepped(step)
        if not values["finite"]:
            _not_finite(run, step, values, indices)
        run.meter.add(values)
        if due(step, run.config.train.log_every, run.config.train.steps):
            _log(run, step)


def _log(run: Run, step: int) -> None:
    record = {**run.meter.flush(), **run.console.rate()}
    run.records.add("train", step, record)
    run.console.report(step, record)


def _not_finite(run: Run, step: int, values: dict[str, float], indices: np.ndarray) -> None:
    ids = ", ".join(run.source.ids[int(index)] for index in indices)
    what = (
        f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']} (not finite) "
        f"on the samples {ids}"
    )
    if run.config.train.on_nonfinite == "stop":
        raise UserError(
            f"{what}; lower config.optim.lr or set config.train.on_nonfinite='skip' to leave such "
            "steps out."
        )
    run.console.say(f"{what}; the step is skipped")


def _validate_and_save(run: Run, interrupt: Interrupt) -> None:
    try:
        miou = _validate(run, interrupt)
    except validation.Interrupted:
        miou = None  # on resuming, the missing evaluation is made first
    if _stopped_early(run) and run.meter.pending:
        _log(run, run.step)
    _save(run, miou=miou)
    run.console.restart_clock()


def _validate(run: Run, interrupt: Interrupt) -> float | None:
    started = time.monotonic()
    run.console.say(f"step {run.step}: evaluating")
    run.predictor.variables = setup.prediction_variables(run.state)
    source: Any = run.validation
    if jax.process_count() == 1:  # if one of several processes stopped, the others would hang
        source = validation.InterruptibleSource(source, lambda: interrupt.requested)
    result = evaluate(
        run.predictor,
        source,
        max_images=run.config.eval.max_images,
        progress=False,
        announce=run.console.say,
    )
    drawn = []
    if jax.process_index() == 0 and run.config.train.pictures:
        drawn = validation.pictures(run.predictor, source, run.config.train.pictures)
        validation.save_pictures(run.workdir / "pictures" / f"step_{run.step:08d}", drawn)
    seconds = time.monotonic() - started
    metrics = result.metrics()
    run.records.add("eval", run.step, validation.record(metrics, seconds))
    if run.tensorboard is not None:
        for name, picture in drawn:
            run.tensorboard.picture(name, picture, run.step)
    if jax.process_index() == 0:
        paired.save(run.workdir, result, run.step)
        path = run.workdir / "report.html"
        document.write_run(path, run.workdir, run.step, result, run.predictor, source, run.config)
    run.console.say(
        f"step {run.step}: {result.summary()}  ({result.num_images} images, {seconds:.0f} s)"
    )
    if metrics["mIoU"] is None and run.records.evaluations()[0]["step"] == run.step:
        run.console.say(
            "warning: the validation images have no labelled pixel, so there are no scores and "
            "no best checkpoint"
        )
    return metrics["mIoU"]


def _save(run: Run, miou: float | None = None) -> None:
    notes = {"pending": run.meter.pending}
    run.checkpoints.save(run.state, miou=miou, notes=notes, before=run.records.sync)
    if run.callbacks.watch_checkpoints:
        run.checkpoints.wait()
        run.callbacks.checkpoint(run.step, run.checkpoints.folder / str(run.step))


def _save_locally(run: Run) -> None:
    notes = {"pending": run.meter.pending}
    run.checkpoints.save_locally(run.state, notes=notes, before=run.records.sync)


def _evaluation(run: Run) -> dict[str, Any] | None:
    """The record of the evaluation at this step; None if there is none."""
    records = run.records.evaluations()
    return next((record for record in records if record["step"] == run.step), None)


def _stopped_early(run: Run) -> bool:
    patience = run.config.train.early_stop
    return patience > 0 and validation.stops_early(run.records.evaluations(), patience)


def _last_good(run: Run) -> str:
    # From the files: asking Orbax would wait for the other processes, which may not come.
    steps = model_folder.finished_steps(run.workdir)
    local = run.checkpoints.local
    newer = [step for step in local.steps() if step > max(steps, default=0)] if local else []
    if local and newer:
        return f"The last good checkpoint is the local one of step {newer[-1]} in {local.folder}."
    if not steps:
        return f"There is no checkpoint yet in {run.workdir}."
    return f"The last good checkpoint is that of step {steps[-1]} in {run.workdir}."


def _next_commands(workdir: Path) -> str:
    folder = shlex.quote(str(workdir))
    return (
        f"next:\n  fastfcn eval --checkpoint {folder}\n"
        f"  fastfcn predict --checkpoint {folder} --input PHOTOS --output predictions"
    )


def _farewell(run: Run, interrupt: Interrupt) -> int:
    """Prints how the training ended and returns the exit status."""
    best = run.checkpoints.best
    kept = f"checkpoints in {run.workdir}: latest {run.checkpoints.latest}, best {best}"
    if run.step >= run.config.train.steps:
        run.console.say(f"trained {run.step} steps; {kept}\n{_next_commands(run.workdir)}")
    elif _stopped_early(run):
        run.console.say(f"stopped early at step {run.step}: no better mIoU; {kept}")
    elif any(runtime.gather("asked" if run.callbacks.asked_to_stop else "")):
        run.console.say(f"stopped by a callback after step {run.step}; {kept}")
    elif interrupt.requested or jax.process_count() > 1:
        workdir = (
            ""
            if "--workdir" in provenance.command()
            else f" --workdir {shlex.quote(str(run.workdir))}"
        )
        again = f"to resume, run: {provenance.command()}{workdir}"
        if run.console.curves is not None:  # the process is the notebook's kernel
            again = "to resume, run the same cell again"
        run.console.say(f"stopped after step {run.step}; {kept}\n{again}")
        return interrupt.status
    return 0
