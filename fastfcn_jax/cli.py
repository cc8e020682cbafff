"""How every command starts and ends: flags parsed, mistakes reported in one sentence."""

import inspect
import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging

from fastfcn_jax.errors import UserError

BAD_INPUT = 2


def run(main: Callable[[list[str]], int | None]) -> None:
    """Parses the absl flags and runs `main(arguments)`, whose result is the exit status.

    A command whose `main(_)` takes no arguments is given none: they would be ignored.
    A `UserError`, a misspelt flag or a configuration that cannot be read ends
    with one sentence on standard error and exit status 2, without a traceback.
    """
    logging.set_verbosity(logging.ERROR)  # Orbax and JAX report every save and every backend
    app.run(lambda argv: _report(lambda: main(_arguments(main, argv))), flags_parser=_parse)


def make_folder(output: Path) -> Path:
    """Makes the folder of --output where it does not exist.

    Raises:
      UserError: there is a file of that name, or nothing can be written there.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--output {output}: no folder can be made there ({error.strerror}); give another."
        ) from error
    return output


def _arguments(main: Callable, argv: list[str]) -> list[str]:
    """The arguments beside the flags. UserError if there are any that `main` does not look at."""
    given = argv[1:]
    if given and "_" in inspect.signature(main).parameters:
        first = given[0]
        if "=" in first:
            raise UserError(f"{first}: is no flag; write --{first.lstrip('-')}.")
        raise UserError(
            f"{first}: belongs to no flag; write --FLAG={first}, and patterns of files in quotes."
        )
    return given


def _report(action: Callable):
    try:
        return action()
    except UserError as error:
        _exit(error)


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except (flags.Error, UserError) as error:
        words = str(error).strip().splitlines()[-1]  # ml_collections puts a traceback before it
        if "config" in flags.FLAGS and (key := re.search(r"flag '(config\.[^']*)'", words)):
            words = f"--{key[1]}: changes a configuration; give --config FILE besides."
        _exit(_fault_of_file(argv) or words)
    except (AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        # What ml_collections raises for an unknown key or a value of the wrong type.
        _exit(_fault_of_file(argv) or f"--config: unknown key or bad value: {in_words(error)}")


def in_words(error: Exception) -> str:
    """What an error of ml_collections says: its text is the repr of a repr, with all keys."""
    words = re.sub(r"(?:\\+n|\s)+", " ", str(error)).replace("\\", "")
    words = re.sub(r'Other fields present: "?{.*}"? ?', "", words)
    while quoted := re.fullmatch(r"""(['"])(.*)\1""", words):
        words = quoted[2].strip()
    return words


def _fault_of_file(argv: list[str]) -> str:
    """What is wrong with the configuration file by itself, flags aside; "" if nothing is."""
    from fastfcn_jax.config import experiment  # which imports this

    words = [word for argument in argv for word in argument.split("=", 1)]
    named = [b for a, b in itertools.pairwise(words) if a in ("--config", "-config")]
    try:
        if named:
            experiment.load(named[-1])
    except UserError as error:
        return str(error)
    return ""


def _exit(error: object) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(BAD_INPUT)
