"""How every command starts and ends: flags parsed, mistakes reported in one sentence."""

import re
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging

from fastfcn_jax.errors import UserError

BAD_INPUT = 2


def run(main: Callable[[list[str]], int | None]) -> None:
    """Parses the absl flags and runs `main(arguments)`, whose result is the exit status.

    A `UserError`, a misspelt flag or a configuration that cannot be read ends
    with one sentence on standard error and exit status 2, without a traceback.
    """
    logging.set_verbosity(logging.ERROR)  # Orbax and JAX report every save and every backend
    app.run(lambda argv: _report(lambda: main(argv[1:])), flags_parser=_parse)


def _report(action: Callable):
    try:
        return action()
    except UserError as error:
        _exit(error)


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except (flags.Error, UserError) as error:
        _exit(str(error).strip().splitlines()[-1])  # ml_collections puts a traceback before it
    except (AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        # What ml_collections raises for an unknown key or a value of the wrong type; its text
        # is the repr of a repr.
        words = re.sub(r"(?:\\+n|\s)+", " ", str(error.args[0])).replace("\\", "")
        _exit(f"--config: unknown key or bad value: {words.strip(chr(34))}")


def _exit(error: object) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(BAD_INPUT)
