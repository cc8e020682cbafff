"""Imports of the packages that only some formats need."""

import importlib
import sys
from typing import Any

from fastfcn_jax.errors import UserError


def needed(module: str, extra: str, what: str = "") -> Any:
    """The module.

    Args:
      what: names what needs it, in the error; "": the format with the name of the extra.

    Raises:
      UserError: it is not installed; the extra that installs it is named.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{what or f'--format {extra}'} needs a package that is not installed ({error.name}): "
            f"pip install 'fastfcn-jax[{extra}]'."
        ) from error


def openvino(what: str = "") -> Any:
    """OpenVINO, without the report that it sends to its makers at every import.

    Args:
      what: as `needed`.

    Raises:
      UserError: it is not installed.
    """
    _tell_nobody()
    return needed("openvino", "openvino", what)


def nncf() -> Any:
    """NNCF, which reports as OpenVINO does.

    Raises:
      UserError: it is not installed.
    """
    _tell_nobody()
    return needed("nncf", "openvino")


def _tell_nobody() -> None:
    """Both take the absence of this package for a wish that nothing be sent."""
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
