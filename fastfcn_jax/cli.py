"""Command lines: parsing flags, printing help, and reporting mistakes in one sentence.

This uses argparse, not absl flags: each command has its own parser instead of one table per
process, `--help` exits with status 0, and the error for a missing flag can show an example. Keys of
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
INTERRUPTED = 130  # a shell's status for a command ended by Ctrl-C (128 + SIGINT)
CLOSED_PIPE = 141  # ... and for one whose output pipe was closed (128 + SIGPIPE)


@dataclass(frozen=True)
class Command:
    """One command.

    name: as typed after `fastfcn`.
    about: what the command does and writes, in a few lines.
    example: a complete command line that works.
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
        """Parses the flags, runs the command, and returns the exit status.

        User errors are printed without a traceback.
        """
        return guarded(
            lambda: self.run(self.parser().parse(sys.argv[1:] if argv is None else argv))
        )


def guarded(action: Callable[[], int | None]) -> int:
    """Runs `action` and returns its exit status; user errors and Ctrl-C print one line."""
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
    """argparse that prints an example first in its help and raises `UserError` for mistakes."""

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
        self._unless: dict[str, tuple[str, ...]] = {}
        self._takes_config = self._auto = False

    def need(
        self, flag: str, example: str, help: str, *, unless: tuple[str, ...] = (), **options: Any
    ) -> None:
        """Adds a required flag; the error for a missing flag shows `example`.

        unless: the names of other values; if one of them is given, the flag may be missing.
        """
        name = flag.lstrip("-").replace("-", "_")
        self._examples[name], self._unless[name] = f"{flag} {example}", unless
        self.add_argument(flag, help=help, **options)

    def add_config(self, help: str, *, needed: bool = True, auto: bool = False) -> None:
        """Adds `--config SPEC` and every `--config.KEY=VALUE`.

        `parse` sets `config` to the loaded configuration or None, and `spec` to the text typed.

        Args:
          auto: make the flag optional and allow `--config auto`; both give None, and the command
            infers the configuration.
        """
        self._takes_config, self._auto = True, auto
        add = self.need if needed and not auto else self._may
        add("--config", "jpu_psp_cityscapes", f"{help} A file or a bare name, [:variant].",
            metavar="CONFIG")  # fmt: skip

    def _may(self, flag: str, example: str, help: str, **options: Any) -> None:
        self.add_argument(flag, help=help, **options)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Returns the values of the flags.

        Raises:
          UserError: a flag is missing, unknown, or has an invalid value.
        """
        own, overrides = split_overrides([_dashed(word) for word in argv])
        arguments, rest = self.parse_known_args(own)
        if rest:
            raise UserError(self._what_is(rest[0]))
        if overrides and not self._takes_config:
            raise UserError(f"{self.prog} takes no configuration; remove {overrides[0]}.")
        for name, example in self._examples.items():
            values = (getattr(arguments, other) for other in (name, *self._unless[name]))
            if all(value is None for value in values):
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
            raise UserError(f"{key}: changes a configuration; give --config FILE as well.")

    def _what_is(self, word: str) -> str:
        """The error message for a word of the command line that was not recognised."""
        if word.startswith("-"):
            name = word.split("=")[0]
            near = difflib.get_close_matches(name, self._option_string_actions, 1)
            meant = f"did you mean {near[0]}?" if near else f"{self.prog} --help lists them."
            return f"{name}: no such flag; {meant}"
        if "=" in word:
            return f"{word}: is not a flag; write --{word.lstrip('-')}."
        return f"{word}: belongs to no flag; write --FLAG={word}, and put file patterns in quotes."

    def _shown(self, flag: str) -> str:
        """A flag with an example of its value."""
        action = self._option_string_actions[flag]
        known = f"{flag} {action.choices[0]}" if isinstance(action.choices, list | tuple) else ""
        return self._examples.get(action.dest) or known or f"{flag} {action.metavar or 'VALUE'}"

    def flags(self) -> list[str]:
        """The names of all flags, as typed."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    def values(self) -> dict[str, list[str] | None]:
        """For each flag that takes a value the choices, None if anything may follow."""
        return {
            name: None if action.choices is None else [str(choice) for choice in action.choices]
            for name, action in self._option_string_actions.items()
            if name.startswith("--") and action.nargs != 0
        }

    def first(self) -> list[str] | None:
        """The choices of the first word without a flag, [] for any; None if there is no such."""
        for action in self._actions:
            if not action.option_strings:
                return [str(choice) for choice in action.choices or ()]
        return None

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
        if flag := re.match(r"argument (?:\S+/)?(--\S+): expected (?:at least )?one", message):
            raise UserError(f"{flag[1]}: its value is missing; for example {self._shown(flag[1])}.")
        raise UserError(re.sub(r"^argument ", "", message) + f"; see {self.prog} --help.")


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into ordinary words and `--config.KEY=VALUE` overrides."""
    own: list[str] = []
    overrides: list[str] = []
    open_key = ""  # the override whose value is the next word
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
    """A flag's value as a path; expands `~`, which a shell does not do after `=`."""
    return Path(words).expanduser()


def at_least(least: int) -> Callable[[str], int]:
    """An argparse type for whole numbers of at least `least`."""

    def whole(words: str) -> int:
        if not re.fullmatch(r"[+-]?\d+", words, re.ASCII) or int(words) < least:
            raise argparse.ArgumentTypeError(f"{words} is not a whole number of at least {least}")
        return int(words)

    return whole


def _dashed(word: str) -> str:
    """Accepts `--save_logits=…` by rewriting it as `--save-logits=…`."""
    if not word.startswith("--") or word.startswith(("--config.", "--noconfig.")):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _print_any_name() -> None:
    """Escapes file names that are not UTF-8 when printed; they would end in a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _quiet_libraries() -> None:
    """Silences Orbax, JAX and XLA, which log every save, absent accelerators, slow compilations.

    Must be called before JAX is imported, which reads the variable once; one that the user has set
    is kept. "ERROR" would let XLA's "file a bug" through. What matters to users, such as a GPU that
    is not used, a training says itself.
    """
    from absl import logging

    logging.set_verbosity(logging.ERROR)
    os.environ.setdefault("JAX_LOGGING_LEVEL", "CRITICAL")
