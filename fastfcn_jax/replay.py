"""Repeats steps of a training run and compares them with its log, bit for bit."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastfcn_jax import cli
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config import experiment
from fastfcn_jax.errors import UserError


def replay(workdir: Path, *, steps: int, start: int | None = None) -> int:
    """Runs `steps` steps from a checkpoint and prints whether they match the log.

    Compares the loss of each step and, if the run kept a checkpoint of the last
    one, its weights, statistics and momentum. Writes nothing.

    Args:
      workdir: folder of the training run.
      steps: number of steps to repeat, at most up to the end of the configured training.
      start: step of the checkpoint to start from; None: the earliest with a log after it.

    Returns:
      0 if every bit agrees, 1 at the first step that differs.

    Raises:
      UserError: the folder is not a run, its log ends too early, or no step is left to repeat.
    """
    from fastfcn_jax import runtime
    from fastfcn_jax.terminal import console
    from fastfcn_jax.training import assembly, loop, run_card, setup, stored_state, strategy

    card = run_card.read(workdir)
    if card is None:
        raise UserError(f"{workdir} is not a training workdir: run.json is missing.")
    config = experiment.from_json(card["config"], workdir / "run.json")
    if config.train.deterministic:
        runtime.make_deterministic()
    runtime.cache_compilations()
    logged = dict(logged_losses(workdir))
    start = _start(workdir, start, logged)
    last = min(start + steps, config.train.steps)
    if last <= start:
        raise UserError(
            f"{workdir}: nothing to replay after step {start}, its configuration ends at step "
            f"{config.train.steps}; give an earlier --start."
        )
    if last not in logged:
        raise UserError(
            f"{workdir}/metrics.jsonl has no losses up to step {last}; take fewer --steps."
        )
    terminal = console.Console(config.train.steps, config.train.batch_size)
    plan = strategy.choose(config.train.strategy, config.train.batch_size)
    source, _ = setup.open_sources(config, terminal)
    if (found := run_card.fingerprint(source)) != card["data"]:
        terminal.say(f"the data differ from those of the run: {found} instead of {card['data']}")
    if config.model.forms != "fast":
        terminal.say(f"forms: {config.model.forms}, as in the run")
    built = assembly.build(config, source, plan)
    state = built.state
    if start:
        state = stored_state.restore(workdir, start, state).state
    terminal.say(f"replaying steps {start + 1} to {last}")
    state = plan.put_state(state)
    batches = loop.device_batches(config, source, plan, start)
    for step in range(start + 1, last + 1):
        state, metrics = built.train_step(state, next(batches)[0], built.numbers(step - 1))
        loss = float(strategy.to_host(metrics["loss"]))
        if loss != logged[step] and not (loss != loss and logged[step] is None):
            terminal.say(f"first difference at step {step}: {logged[step]!r} logged, {loss!r} now")
            return 1
    arrays = ""
    if last in model_folder.finished_steps(workdir):
        if stored_state.checksums(strategy.to_host(state)) != model_folder.verify(workdir, last):
            terminal.say(f"losses agree, but the arrays of step {last} differ from its checkpoint")
            return 1
        arrays = f", and so are the arrays of step {last}"
    terminal.say(f"{last - start} steps from step {start} are bit-identical to the log{arrays}")
    return 0


def logged_losses(workdir: Path) -> Iterator[tuple[int, Any]]:
    """Yields (step, loss) of every step in metrics.jsonl; a loss that was not finite is None."""
    from fastfcn_jax.training import metrics_log

    for record in metrics_log.read(workdir / "metrics.jsonl"):
        if record["kind"] == "train":
            first = record["step"] - len(record["losses"]) + 1
            yield from enumerate(record["losses"], start=first)


def _start(workdir: Path, wanted: int | None, logged: dict[int, Any]) -> int:
    kept = model_folder.finished_steps(workdir)
    if wanted is not None:
        if wanted and wanted not in kept:
            raise UserError(f"{workdir} has no checkpoint of step {wanted}, only of {kept} and 0.")
        return wanted
    return next((step for step in kept if step + 1 in logged), 0)


def define(parser: cli.Parser) -> None:
    parser.add_argument("workdir", nargs="?", type=cli.path, help="Folder of the training.")
    parser.add_argument(
        "--steps", type=cli.at_least(1), default=20, metavar="N", help="How many steps to repeat."
    )
    parser.add_argument(
        "--start",
        type=cli.at_least(0),
        metavar="STEP",
        help="Step of the checkpoint to start from; default: the earliest.",
    )


def run(arguments: Namespace) -> int:
    if arguments.workdir is None:
        raise UserError(
            "the folder of the training is missing; for example fastfcn replay runs/demo."
        )
    return replay(arguments.workdir, steps=arguments.steps, start=arguments.start)


COMMAND = cli.Command(
    name="replay",
    example="fastfcn replay runs/demo --steps 20",
    about="""Repeats steps of a training from one of its checkpoints and compares the losses and
weights with those that the training wrote, bit for bit. Writes nothing. The exit status is 1 if a
bit differs.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
