"""A configuration from the command line: a file or a bare name, and `--config.KEY=VALUE`."""

from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from fastfcn_jax.config import experiment, schema
from fastfcn_jax.errors import UserError


def parse(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads `FILE.py[:variant]` or `NAME[:variant]` and applies the overrides to it.

    Args:
      overrides: `--config.KEY=VALUE` and `--noconfig.KEY`, as ml_collections writes them.

    Raises:
      UserError: the file is missing or invalid, a key is unknown, or a value is not allowed.
    """
    config = experiment.load(spec)  # gives better messages for an invalid file than ml_collections
    if overrides:
        config = _overridden(spec, overrides)
    experiment.expand_home(config)
    schema.check(config)
    return config


def _overridden(spec: str, overrides: Sequence[str]) -> ConfigDict:
    """Runs ml_collections' parser on private flag values, without touching absl's global flags."""
    name, _, variant = spec.partition(":")
    values = flags.FlagValues()
    file = f"{experiment.find(name)}:{variant}" if variant else str(experiment.find(name))
    words = ["", f"--config={file}", *overrides]
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=words)
    try:
        values(words)
        config: Any = values["config"].value
        return config
    except flags.Error as error:
        last = str(error).strip().splitlines()[-1]  # ml_collections puts a traceback before it
        raise UserError(last) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Raised by ml_collections for an unknown key or a value of the wrong type.
        raise UserError(
            f"--config: unknown key or bad value: {experiment.in_words(error)}"
        ) from error
