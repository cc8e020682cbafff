"""`fastfcn bench`: where the time of a training step goes on this device."""

import sys
from argparse import Namespace
from pathlib import Path

from ml_collections import ConfigDict

from fastfcn_jax import cli
from fastfcn_jax.errors import UserError


def define(parser: cli.Parser) -> None:
    parser.add_config("Experiment to measure.", needed=False)
    parser.add_argument(
        "--checkpoint",
        type=cli.path,
        metavar="DIR",
        help="Measure the experiment of this checkpoint folder or published name instead.",
    )
    parser.add_argument(
        "--batch",
        type=cli.at_least(0),
        default=0,
        metavar="N",
        help="Images at a time; default: config.train.batch_size.",
    )
    parser.add_argument(
        "--rounds", type=cli.at_least(1), default=5, metavar="N", help="Turns that each part takes."
    )
    parser.add_argument(
        "--notwin", dest="twin", action="store_false", help="Leave out the dilated twin of a JPU."
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="Time the forms of each operation instead, and keep the faster for this device.",
    )
    parser.add_argument("--json", type=cli.path, metavar="FILE", help="File for the figures.")


def run(arguments: Namespace) -> None:
    from fastfcn_jax import files
    from fastfcn_jax.bench import parts, tune

    if (arguments.config is None) == (arguments.checkpoint is None):
        raise UserError("give --config or --checkpoint; for example --config jpu_psp_cityscapes.")
    config = arguments.config or experiment_of(arguments.checkpoint)
    batch, rounds = arguments.batch, arguments.rounds
    if arguments.tune:
        found = tune.tuned(config, batch=batch, rounds=rounds)
        print(tune.table(found))
    else:
        found = parts.measured(config, batch=batch, rounds=rounds, with_twin=arguments.twin)
        print(parts.table(found))
    if arguments.json is not None:
        files.write_json(arguments.json, found)


def experiment_of(folder: str | Path) -> ConfigDict:
    """The experiment of a checkpoint folder or published name, with its number of classes.

    Raises:
      UserError: it is neither.
    """
    from fastfcn_jax.checkpoints import model_folder
    from fastfcn_jax.weights import store

    path = store.checkpoint(folder)
    config, info = model_folder.from_card(model_folder.read_card(path), path / "model.json")
    if config.model.num_classes != 1:  # one channel, for two classes
        with config.unlocked():
            config.model.num_classes = info.num_classes
    return config


COMMAND = cli.Command(
    name="bench",
    example="fastfcn bench --config jpu_psp_cityscapes --batch 2",
    about="""Measures a training step and prediction part by part, with random weights and images.

"training" is one forward and backward pass of the part; "roofline" the share of its time that its
arithmetic or memory traffic takes at the rates measured on this device. The image size is
config.data.crop_size.

With --tune it times each operation that has a fast form, forward and backward, against the plain
form, and writes which is faster to forms.json in the cache folder, for this kind of device, version
of jax and config.model.precision. Training and prediction take it unless config.model.forms says
otherwise.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
