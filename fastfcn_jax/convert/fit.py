"""Fits a file's tensors to the variables of a model and reports on each of them; and back."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from fastfcn_jax import models
from fastfcn_jax.convert import detect, mmseg_names, official_names, paddleseg_names
from fastfcn_jax.convert.detect import Detected
from fastfcn_jax.convert.pth import ReadResult
from fastfcn_jax.errors import UserError

_COUNTER_RULE = "step counters of BatchNorm"
_BIAS_RULE = "biases before BatchNorm, taken from its mean"
COUNTER = ".num_batches_tracked"
CLASSIFIERS = ("decode_head.conv_seg.", "decode_head.se_layer.", "auxiliary_head.conv_seg.")


class Report(NamedTuple):
    """What was done with every entry of a file.

    Attributes:
      kind, stubbed: see `pth.ReadResult`.
      detected: the model recognised from names and shapes.
      mapped: names of the tensors used by the model.
      ignored: names of the tensors left out, by reason.
      reset: names of the classifiers that were reinitialised.
      step: training steps of the weights, from BatchNorm's counters (0: unknown).
      notes: where in the file the weights were, and what was assumed about their classes.
    """

    kind: str
    detected: Detected
    mapped: tuple[str, ...]
    ignored: dict[str, tuple[str, ...]]
    stubbed: tuple[str, ...]
    reset: tuple[str, ...]
    step: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"file        {self.kind}",
            *(f"note        {note}" for note in self.notes),
            f"model       {self.detected}",
            f"mapped      {len(self.mapped)} tensors",
            *(f"ignored     {len(names)} {rule}" for rule, names in self.ignored.items() if names),
            *(f"not read    {name}" for name in self.stubbed),
            *(f"reset       {name}" for name in self.reset),
            "missing     none",
            "left over   none",
            f"step        {self.step} (BatchNorm's counters)",
        ]
        return "\n".join(lines)


class Fitted(NamedTuple):
    """Variables ready for the model, and the report."""

    variables: dict[str, Any]
    report: Report


def to_variables(
    file: ReadResult,
    model: ConfigDict,
    num_classes: int,
    *,
    reset_head: bool = False,
    seed: int = 0,
    channels: int = 3,
) -> Fitted:
    """Fits the tensors of a `.pth` file to the model that `model` (`config.model`) describes.

    Args:
      reset_head: initialise new classifiers, for another class count.
      seed: for the new classifiers.
      channels: of the images that the model takes.

    Raises:
      UserError: the file holds another model, tensors are missing or left over, or one contains
        NaN or infinity.
    """
    lineage = detect.lineage(file.tensors)
    names: dict[str, str | None] = {name: name for name in file.tensors}
    if lineage == "official":
        names = official_names.to_mmseg_names(file.tensors)
    elif lineage == "paddleseg":
        names = {**paddleseg_names.to_mmseg_names(file.tensors)}
    ignored = {
        _COUNTER_RULE: tuple(n for n in names if n.endswith(COUNTER)),
        "weights of the unused ImageNet classifier": tuple(
            n for n in official_names.IGNORED if lineage == "official" and n in names
        ),
    }
    known = names.keys() - {name for group in ignored.values() for name in group}
    tensors = {names[n] or n: tensor for n, tensor in file.tensors.items() if n in known}
    back = {ours: theirs for theirs, ours in names.items() if ours is not None}
    if lineage == "paddleseg":
        refuse_nonfinite(tensors, back)  # a bias would hide in the mean
        relaid = paddleseg_names.to_mmseg(tensors)
        ignored[_BIAS_RULE] = tuple(back[n] for n in tensors if n not in relaid)
        tensors = relaid
    found = detect.detect({name: tensor.shape for name, tensor in tensors.items()}, lineage)
    compared = found._replace(num_classes=num_classes) if reset_head else found
    if differing := detect.differences(compared, model, num_classes):
        raise UserError(f"another model than the configured one ({found}): {'; '.join(differing)}")

    wanted = template(model, num_classes, channels)
    reset = tuple(n for n in tensors if n.startswith(CLASSIFIERS)) if reset_head else ()
    taken = {name: tensor for name, tensor in tensors.items() if name not in reset}
    refuse_nonfinite(taken, back)
    variables: dict[mmseg_names.Path, Any] = traverse_util.flatten_dict(mmseg_names.to_flax(taken))
    fresh = _initial(model, num_classes, seed, reset) if reset else {}
    _check(variables | fresh, wanted, lineage, back, file.others)
    return Fitted(
        traverse_util.unflatten_dict(variables | fresh),
        Report(
            kind=file.kind,
            detected=found,
            mapped=tuple(back.get(name, name) for name in taken),
            ignored=ignored,
            stubbed=file.stubbed,
            reset=tuple(back.get(name, name) for name in reset),
            step=max((int(file.tensors[name].max()) for name in ignored[_COUNTER_RULE]), default=0),
            notes=_origin(file),
        ),
    )


def _origin(file: ReadResult) -> tuple[str, ...]:
    """Notes on where in the file the weights were, if in an unusual place, and on its iteration."""
    found, lines = file.found, []
    if found is not None and (found.prefix or found.others or found.keys not in ("", "state_dict")):
        lines.append(f"weights {found}")
    if found is not None and found.outside:
        lines.append(f"outside the model, not used: {_listed(list(found.outside), 6)}")
    if file.meta.iteration:
        lines.append(f"at iteration {file.meta.iteration} of its training, according to the file")
    return tuple(lines)


def template(
    model: ConfigDict, num_classes: int, channels: int = 3
) -> dict[mmseg_names.Path, jax.ShapeDtypeStruct]:
    """Shapes of the model's variables by path, without computing them."""
    init = _initialiser(model, num_classes, channels)
    shapes: dict[mmseg_names.Path, Any] = traverse_util.flatten_dict(
        jax.eval_shape(lambda: init(jax.random.key(0)))
    )
    return shapes


def to_tensors(variables: Mapping, lineage: str, *, step: int = 0) -> dict[str, np.ndarray]:
    """The state dict that the lineage's own code loads with `strict=True`.

    Adds what our variables lack: BatchNorm's step counters, set to `step`, the official code's
    unused ImageNet classifier, set to zero, and PaddleSeg's biases before BatchNorm, 0 as well.
    """
    if lineage == "paddleseg":
        return paddleseg_names.from_mmseg(mmseg_names.from_flax(variables))
    tensors = (official_names if lineage == "official" else mmseg_names).from_flax(variables)
    for name in [name for name in tensors if name.endswith(".running_var")]:
        tensors[name.removesuffix(".running_var") + COUNTER] = np.array(step, np.int64)
    if lineage == "official":
        features = tensors["pretrained.layer4.0.bn3.weight"].shape[0]
        weight, bias = official_names.IGNORED
        tensors[weight] = np.zeros((1000, features), np.float32)
        tensors[bias] = np.zeros(1000, np.float32)
    return tensors


def _initialiser(model: ConfigDict, num_classes: int, channels: int = 3):
    network = models.build(model, num_classes)
    return lambda key: network.init(key, jnp.zeros((1, 64, 64, channels)))


def _initial(model: ConfigDict, num_classes: int, seed: int, names: Iterable[str]) -> dict:
    """Newly initialised variables of these names; jit removes the computation of all others."""
    init = _initialiser(model, num_classes)

    def draw(key):
        flat = traverse_util.flatten_dict(init(key))
        return {path: flat[path] for path in flat if mmseg_names.torch_name(path, flat) in names}

    return jax.tree.map(np.asarray, jax.jit(draw)(jax.random.key(seed)))


def _check(
    variables: Mapping[mmseg_names.Path, np.ndarray],
    wanted: Mapping[mmseg_names.Path, jax.ShapeDtypeStruct],
    lineage: str,
    back: Mapping[str, str],
    others: tuple[str, ...],
) -> None:
    """Raises UserError if tensors are missing, left over or of another shape, and lists them."""
    missing = _file_names([path for path in wanted if path not in variables], wanted, lineage)
    extra = [mmseg_names.torch_name(path, variables) for path in variables if path not in wanted]
    left_over = sorted(back.get(name, name) for name in extra) + sorted(others)
    shapes = [
        f"{'/'.join(path[1:])}: {variables[path].shape} for {wanted[path].shape}"
        for path in sorted(variables.keys() & wanted.keys())
        if variables[path].shape != wanted[path].shape
    ]
    if missing or left_over or shapes:
        raise UserError(
            "the file does not fit the configured model. "
            f"Missing from the file ({len(missing)}): {_listed(missing)}. "
            f"Left over in the file ({len(left_over)}): {_listed(left_over)}. "
            f"Of another shape ({len(shapes)}): {_listed(shapes)}"
        )


def refuse_nonfinite(tensors: Mapping[str, np.ndarray], back: Mapping[str, str]) -> None:
    """Raises UserError for weights with NaN or infinity, as left by a diverged training run.

    `back` maps our names to the file's own, for the message.
    """
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity, and is refused
        bad = [
            back.get(name, name)
            for name, tensor in tensors.items()
            if not np.isfinite(tensor.astype(np.float32)).all()
        ]
    if bad:
        raise UserError(
            f"NaN or infinity in {len(bad)} tensors: {_listed(bad, 3)}; "
            "its training diverged, use an earlier file"
        )


def _file_names(paths: list[mmseg_names.Path], siblings, lineage: str) -> list[str]:
    """What these paths are called in a file of the lineage."""
    names = [mmseg_names.torch_name(path, siblings) for path in paths]
    if lineage == "official":
        every = [mmseg_names.torch_name(path, siblings) for path in siblings]
        official = official_names.from_mmseg_names(every)
        names = [official[name] or name for name in names]
    elif lineage == "paddleseg":
        names = [paddleseg_names.from_mmseg_name(name) for name in names]
    return sorted(names)


def _listed(names: list[str], limit: int = 40) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + more
