"""Compares the shapes of stored weights with those of the model that their folder describes."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax.errors import UserError


def check(folder: Path, config: ConfigDict, num_classes: int, variables: dict[str, Any]) -> None:
    """Does nothing if the weights are of the configured model.

    Raises:
      UserError: they are not, as after an edit of model.json by hand.
    """
    from fastfcn_jax import models

    model = models.build(config.model, num_classes)
    images = np.zeros((1, 64, 64, config.data.channels), np.float32)
    wanted = of(jax.eval_shape(model.init, jax.random.key(0), images))
    found = of(variables)
    names = wanted.keys() | found.keys()
    if differing := sorted(name for name in names if wanted.get(name) != found.get(name)):
        name = differing[0]
        raise UserError(
            f"{folder}/model.json: config.model describes another model than the weights are of: "
            f"{name} is {found.get(name, 'missing')}, not {wanted.get(name, 'unused')} "
            f"({len(differing)} arrays differ); fix it, or convert or train the model again."
        )


def of(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every array of nested dicts, by its path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf.shape for path, leaf in leaves}
