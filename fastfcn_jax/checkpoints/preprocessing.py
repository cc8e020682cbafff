"""How images become the input of a stored model; fixed by its configuration."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fastfcn_jax.data import pixel_type
from fastfcn_jax.data.pixel_type import RGB
from fastfcn_jax.errors import UserError


def described(config: ConfigDict) -> dict[str, Any]:
    """What `model.json` says: minus mean, divided by std, channel by channel."""
    from fastfcn_jax import models

    mean, std = models.scaling(config.data)
    pixel = pixel_type.of(config.data)
    if pixel == RGB:
        return {"mean": list(mean), "std": list(std), "channels": "RGB"}
    return {"mean": list(mean), "std": list(std), **pixel._asdict()}


def check(given: Any, config: ConfigDict, source: Path) -> None:
    """Raises UserError if the file `source` describes another preprocessing."""
    built_in = described(config)
    if given != built_in:
        raise UserError(
            f"{source}: preprocessing must be {built_in}, which cannot be changed; fix it, or "
            "convert or train the model again."
        )


def as_trained(model: ConfigDict, config: ConfigDict) -> ConfigDict:
    """The configuration of some data, with the kind of images that a model was trained on."""
    result = config.copy_and_resolve_references()
    with result.unlocked():
        result.data.update({key: model.data[key] for key in ("channels", "dtype", "scaling")})
    return result
