"""`fastfcn config`: prints, compares and documents configurations."""

import contextlib
import sys
from argparse import Namespace

from fastfcn_jax import cli
from fastfcn_jax.config import experiment, schema
from fastfcn_jax.errors import UserError

USAGE = (
    "config list | show CONFIG | diff CONFIG CONFIG | document | complete bash|zsh | "
    "rename-class RUN OLD NEW"
)


def define(parser: cli.Parser) -> None:
    parser.add_argument("words", nargs="*", metavar="WORD", help=USAGE)


def run(arguments: Namespace) -> None:
    match arguments.words:
        case ["list"]:
            print("\n".join(experiment.names()))
        case ["show", spec]:
            for key, value in schema.flatten(experiment.load(spec)):
                print(f"{key} = {value!r}")
        case ["diff", first, second]:
            pair = experiment.load(first), experiment.load(second)
            for key, left, right in experiment.differences(*pair):
                print(f"{key}: {left!r} -> {right!r}")
        case ["document"]:
            from fastfcn_jax.config import page

            print(page.page(), end="")
        case ["complete", "bash" | "zsh" as shell]:
            from fastfcn_jax import __main__ as door
            from fastfcn_jax.config import completion
            from fastfcn_jax.weights import registry

            words = {
                name: completion.Words(parser.flags(), parser.values(), parser.first())
                for name in door.COMMANDS
                for parser in [door.command(name).parser()]
            }
            print(completion.script(shell, words, list(registry.ENTRIES)))
        case ["rename-class", folder, old, new]:
            from fastfcn_jax.checkpoints.rename_class import rename_class
            from fastfcn_jax.training import workdir

            path = cli.path(folder)
            is_run = (path / "run.json").is_file()  # a training of it would write the old name back
            with workdir.hold(path) if is_run else contextlib.nullcontext():
                print("\n".join(rename_class(path, old, new)))
        case _:
            raise UserError(f"usage: fastfcn {USAGE}.")


COMMAND = cli.Command(
    name="config",
    example="fastfcn config show jpu_psp_cityscapes:4x4",
    about="""list       print the names of the published configurations
show       print every value of a configuration (CONFIG:VARIANT for a variant)
diff       print the keys in which two configurations differ
document   print the page of all keys, as Markdown
complete   print a script for bash or zsh that completes commands, flags, keys and choices:
           eval "$(fastfcn config complete bash)"
rename-class   rename a class of a run and its model""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
