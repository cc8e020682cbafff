"""How every command reads its flags, says its help, and reports mistakes in one sentence.

argparse and not absl's flags: a command's flags are its own object instead of one table for the
whole process, `--help` ends with status 0, and a flag that is missing can name an example. Keys of
a configuration (`--config.train.steps=10`) are still parsed by ml_collections (`config.flags`).
"""

import argparse
import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fastfcn_jax import text
from fastfcn_jax.errors import UserError

BAD_INPUT = 2
INTERRUPTED = 130  # as a shell reports a command that Ctrl-C ended
CLOSED_PIPE = 141  # ... and one whose reader went away


@dataclass(frozen=True)
class Command:
    """One command.

    name: as typed behind `fastfcn`.
    about: what it does and leaves, a few lines.
    example: a whole command line that works.
    define: adds the flags to a parser.
    run: does the work with the parsed flags; returns the exit status (None: 0).
    """

    name: str
    about: str
    example: str
    define: Callable[["Parser"], None]
    run: Callable[[argparse.Namespace], int | None]

    def parser(self) -> "Parser":
        parser = Parser(self.name, self.about, self.example)
        self.define(parser)
        return parser

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Parses the flags, runs, and returns the exit status; nothing that a user can mend
        ends in a traceback.
        """
        return guarded(
            lambda: self.run(self.parser().parse(sys.argv[1:] if argv is None else argv))
        )


def guarded(action: Callable[[], int | None]) -> int:
    """Runs `action` and returns its exit status; mistakes and Ctrl-C are said in one line."""
    _quiet_libraries()
    _print_any_name()
    try:
        status = action() or 0
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {text.shown(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `fastfcn config show … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE


class Parser(argparse.ArgumentParser):
    """argparse with the example first in the help, and mistakes as `UserError`."""

    def __init__(self, name: str, about: str, example: str):
        super().__init__(
            prog=f"fastfcn {name}",
            description=about,
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
                prog, max_help_position=26, width=100
            ),
        )
        self.example = example
        self._examples: dict[str, str] = {}
        self._takes_config = self._auto = False

    def need(self, flag: str, example: str, help: str, **options: Any) -> None:
        """Adds a flag that has to be given; `example` is named where it is not."""
        self._examples[flag.lstrip("-").replace("-", "_")] = f"{flag} {example}"
        self.add_argument(flag, help=help, **options)

    def add_config(self, help: str, *, needed: bool = True, auto: bool = False) -> None:
        """Adds `--config SPEC` and, with it, every `--config.KEY=VALUE`.

        The parsed `config` is the configuration itself, or None; `spec` is what was typed.

        Args:
          auto: `--config auto`, which is also the default, is None: the command finds out itself.
        """
        self._takes_config, self._auto = True, auto
        add = self.need if needed and not auto else self._may
        add("--config", "jpu_psp_cityscapes", f"{help} A file or a bare name, [:variant].",
            metavar="CONFIG")  # fmt: skip

    def _may(self, flag: str, example: str, help: str, **options: Any) -> None:
        self.add_argument(flag, help=help, **options)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The flags' values.

        Raises:
          UserError: a flag is missing, unknown, or has a value that it does not take.
        """
        own, overrides = split_overrides([_dashed(word) for word in argv])
        arguments, rest = self.parse_known_args(own)
        if rest:
            raise UserError(self._what_is(rest[0]))
        if overrides and not self._takes_config:
            raise UserError(f"{self.prog} takes no configuration: {overrides[0]} is not for it.")
        for name, example in self._examples.items():
            if getattr(arguments, name) is None:
                flag = example.split()[0]
                raise UserError(f"{flag} is missing; for example {example}.")
        if self._takes_config:
            self._load_config(arguments, overrides)
        return arguments

    def _load_config(self, arguments: argparse.Namespace, overrides: list[str]) -> None:
        from fastfcn_jax.config import flags

        arguments.spec = arguments.config
        if self._auto and arguments.spec == "auto":
            arguments.config = arguments.spec = None
        if arguments.spec is not None:
            arguments.config = flags.parse(arguments.spec, overrides)
        elif overrides:
            key = overrides[0].split("=")[0]
            raise UserError(f"{key}: changes a configuration; give --config FILE besides.")

    def _what_is(self, word: str) -> str:
        """Why a word of the command line belongs to nothing."""
        if word.startswith("-"):
            name = word.split("=")[0]
            near = difflib.get_close_matches(name, self._option_string_actions, 1)
            meant = f"did you mean {near[0]}?" if near else f"{self.prog} --help lists them."
            return f"{name}: no such flag; {meant}"
        if "=" in word:
            return f"{word}: is no flag; write --{word.lstrip('-')}."
        return f"{word}: belongs to no flag; write --FLAG={word}, and patterns of files in quotes."

    def flags(self) -> list[str]:
        """The names of all flags, as they are typed."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    def format_help(self) -> str:
        formatter = self._get_formatter()
        formatter.add_text(self.description)
        for group in self._action_groups:
            formatter.start_section("flags" if group.title == "options" else group.title)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
        if self._takes_config:
            formatter.add_text("--config.KEY=VALUE changes any key, e.g. --config.data.root=DIR")
        return f"  {self.example}\n\n{formatter.format_help()}"

    def error(self, message: str) -> NoReturn:
        raise UserError(re.sub(r"^argument ", "", message) + f"; see {self.prog} --help.")


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates the flags `--config.KEY=VALUE` from the others, each with its value."""
    own: list[str] = []
    overrides: list[str] = []
    open_key = ""  # a key whose value is the next word
    for word in words:
        if word.startswith(("--config.", "--noconfig.")):
            overrides.append(word)
            open_key = "" if "=" in word or word.startswith("--no") else word
        elif open_key and not word.startswith("--"):
            overrides[-1] = f"{open_key}={word}"
            open_key = ""
        else:
            own.append(word)
            open_key = ""
    return own, overrides


def path(words: str) -> Path:
    """A flag's value as a path; `~` is the home folder, also behind `=`, where no shell sees it."""
    return Path(words).expanduser()


def at_least(least: int) -> Callable[[str], int]:
    """The type of a flag that takes whole numbers from `least` on."""

    def whole(words: str) -> int:
        if not re.fullmatch(r"[+-]?\d+", words, re.ASCII) or int(words) < least:
            raise argparse.ArgumentTypeError(f"{words} is not a whole number of at least {least}")
        return int(words)

    return whole


def _dashed(word: str) -> str:
    """`--save_logits=…` as `--save-logits=…`: both spellings are taken."""
    if not word.startswith("--") or word.startswith(("--config.", "--noconfig.")):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _print_any_name() -> None:
    """File names may hold bytes that are no UTF-8; printing one would end in a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _quiet_libraries() -> None:
    """Orbax and JAX would report every save and every backend."""
    from absl import logging

    logging.set_verbosity(logging.ERROR)
