"""Initial weights of a training: random, from an ImageNet backbone, or from a checkpoint."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Float
from ml_collections import ConfigDict

from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.convert import backbone
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.weights import registry, store

SIZE = 64  # side in pixels of the image used to initialise; parameters do not depend on it
CLASSIFIERS = ("conv_seg", "se_layer")  # modules with one output per class
FIRST = ("stem_0", "conv1")  # modules of the backbone that take the image

Variables = dict[str, Any]


def variables(
    config: ConfigDict, model: nn.Module, info: DatasetInfo
) -> tuple[Variables, list[str]]:
    """Returns the initial "params" and "batch_stats" on the host, and notes on their origin.

    Args:
      info: the data set to train on; its classes are compared with those of a checkpoint.

    Raises:
      UserError: a file is missing or does not fit the model or the classes.
    """
    if config.init.checkpoint:
        return _from_checkpoint(config, model, info)
    if config.init.backbone:
        return _from_backbone_file(config, model)
    return _random(config, model), [_random_note(config.model)]


def random_variables(model: nn.Module, seed: int, channels: int = 3) -> Variables:
    """Initialises the model for images of `channels` with `jax.random.key(seed)`."""
    images = jnp.zeros((1, SIZE, SIZE, channels))
    initialised = jax.jit(model.init)(jax.random.key(seed), images)
    return jax.tree.map(np.asarray, dict(initialised))


def _random(config: ConfigDict, model: nn.Module) -> Variables:
    return random_variables(model, config.seed, config.data.channels)


def _random_note(model: ConfigDict) -> str:
    """Says what random weights give up: every published score starts from an ImageNet backbone."""
    names = registry.fitting(model)
    if not names:
        return "initial weights: random"
    return (
        f"initial weights: random; published models start from an ImageNet backbone, such as "
        f"--config.init.backbone={names[0]}"
    )


def _from_checkpoint(
    config: ConfigDict, model: nn.Module, info: DatasetInfo
) -> tuple[Variables, list[str]]:
    folder = store.checkpoint(config.init.checkpoint)
    loaded = model_folder.load_model(folder)
    given: dict[Any, Any] = traverse_util.flatten_dict(loaded.variables)
    wanted: dict[Any, Any] = traverse_util.flatten_dict(_random(config, model))
    given, adapted = _adapted(given, wanted)
    if config.init.reset_head:
        given = {path: x for path, x in given.items() if not _is_classifier(path)}
        missing = [path for path in wanted if path not in given and not _is_classifier(path)]
    else:
        missing = [path for path in wanted if path not in given]
    differing = [
        path for path in given if path in wanted and given[path].shape != wanted[path].shape
    ]
    if config.init.reset_head is False and any(_is_classifier(path) for path in differing):
        raise UserError(
            f"{folder} was trained on {len(loaded.info.class_names)} classes "
            f"({loaded.info.name}), but this data set has another number of classes; "
            "set config.init.reset_head=True to start with a new classifier."
        )
    _refuse(folder, missing, differing)
    merged = {path: given.get(path, x) for path, x in wanted.items()}
    notes = [f"initial weights: {folder} (step {loaded.step})", *adapted]
    if config.init.reset_head:
        notes.append("the classifiers are initialised randomly")
    elif note := model_folder.compare_classes(folder, loaded.info, info):
        notes.append(note)
    return traverse_util.unflatten_dict(merged), notes


def _from_backbone_file(config: ConfigDict, model: nn.Module) -> tuple[Variables, list[str]]:
    loaded = backbone.load(store.backbone(config.init.backbone), config.model)
    random: dict[Any, Any] = traverse_util.flatten_dict(_random(config, model))
    given, adapted = _adapted(traverse_util.flatten_dict(loaded.variables), random)
    notes = [f"initial backbone: {config.init.backbone}", *loaded.notes, *adapted]
    return traverse_util.unflatten_dict(random | given), notes


def _adapted(given: dict[Any, Any], wanted: dict[Any, Any]) -> tuple[dict[Any, Any], list[str]]:
    """The given arrays with the first convolution for as many channels as wanted, and a note."""
    for module in FIRST:
        path = ("params", "backbone", module, "kernel")
        if path not in given or path not in wanted:
            continue
        kernel, channels = given[path], wanted[path].shape[2]
        if kernel.shape[2] == 3 and channels != 3:
            rule = "summed over" if channels == 1 else f"repeated, times 3/{channels}, of"
            note = f"the first convolution takes {channels} channels: its weights are {rule} RGB's"
            return given | {path: for_channels(kernel, channels)}, [note]
    return given, []


def for_channels(
    kernel: Float[np.ndarray, "p q 3 k"], channels: int
) -> Float[np.ndarray, "p q c k"]:
    """A convolution of RGB for images of `channels`, as timm's `adapt_input_conv` makes it.

    One channel gets the sum over RGB: a grey image gives what it would give as three equal
    channels. Otherwise the three are repeated in turn and scaled by 3 / channels, which keeps the
    size of the result.
    """
    if channels == 1:
        return kernel.sum(2, keepdims=True)
    return kernel[:, :, np.arange(channels) % 3] * np.float32(3 / channels)


def _refuse(source: Path, missing: list, differing: list) -> None:
    if missing or differing:
        name = "/".join((missing + differing)[0])
        raise UserError(
            f"{source} does not fit the configured model: {len(missing)} arrays are missing, "
            f"{len(differing)} have another shape, the first is {name}; "
            "compare config.model with the configuration of those weights."
        )


def _is_classifier(path: tuple[str, ...]) -> bool:
    return any(name in CLASSIFIERS for name in path)
