"""Times the operations of a training step in their fast and their plain form on this device."""

import collections
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax import measured_forms, models, runtime
from fastfcn_jax.bench import measure
from fastfcn_jax.config import schema
from fastfcn_jax.data import datasets
from fastfcn_jax.models import folding
from fastfcn_jax.models.ops.forms import FAST, PLAIN, Forms, operation
from fastfcn_jax.training import assembly, losses

# Plain is taken up to this share of the fast form's time, so that noise decides nothing.
MOST = 0.97
# Not timed: they only act on what XLA makes of the operations around them.
NOT_ALONE = ("batch norm before 1x1", "barrier")


class Call(NamedTuple):
    """An operation and its arguments: (positional, named), arrays as `jax.ShapeDtypeStruct`."""

    operation: str
    leaves: tuple[Any, ...]
    structure: Any


class Times(NamedTuple):
    """Seconds that a step's `calls` of an operation take, forward and backward, in either form.

    always: whether plain was faster in every round.
    """

    calls: int
    fast: float
    plain: float
    always: bool

    @property
    def taken(self) -> str:
        # On a busy machine the medians of the same three convolutions were 20 % apart.
        return "plain" if self.always and self.plain <= MOST * self.fast else "fast"


@dataclasses.dataclass(frozen=True)
class Recorder(Forms):
    """The fast forms, which count the calls of each operation with the same shapes."""

    kind: str = "fast"
    calls: collections.Counter[Call] = dataclasses.field(
        default_factory=collections.Counter, compare=False
    )

    def __getitem__(self, operation: str) -> Any:
        form = super().__getitem__(operation)
        if operation in NOT_ALONE:
            return form

        def noted(*arguments, **named):
            self._note(operation, arguments, named)
            return form(*arguments, **named)

        return noted

    def convolve_by_row(self, x, kernel, stride, dilation):
        if not self.is_plain(name := operation(x, kernel, stride, dilation)):
            self._note(name, (x, kernel, stride, dilation), {})
        return super().convolve_by_row(x, kernel, stride, dilation)

    def _note(self, operation, arguments, named):
        leaves, structure = jax.tree.flatten((arguments, named))
        self.calls[Call(operation, tuple(map(_described, leaves)), structure)] += 1


def _described(leaf):
    if isinstance(leaf, jax.Array | np.ndarray):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return FAST if isinstance(leaf, Forms) else leaf


def recorded(config: ConfigDict) -> collections.Counter[Call]:
    """The calls of a training step's forward pass, by tracing it: nothing is computed."""
    d, recorder = config.data, Recorder()
    count = config.model.num_classes or datasets.info(d.name, d.root).num_classes
    num_classes = max(count, 2)  # one channel is for two classes
    model = models.build(config.model, num_classes)
    shape = (config.train.batch_size, *d.crop_size)
    images = jax.ShapeDtypeStruct((*shape, d.channels), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    recording = folding.with_common(model, forms=recorder)

    def loss(variables, images, labels):
        rngs = {"dropout": jax.random.key(0)}
        outputs, _ = recording.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs=rngs
        )
        settings = assembly.loss_settings(config)
        return losses.total_loss(outputs, labels, num_classes, forms=recorder, **settings)[0]

    jax.eval_shape(loss, variables, images, jax.ShapeDtypeStruct(shape, jnp.uint8))
    return recorder.calls


def program(call: Call, forms: Forms) -> Callable[[], Any]:
    """Returns an operation, forward and backward, with random arrays in its arguments."""
    drawn = [_drawn(i, leaf) for i, leaf in enumerate(call.leaves) if _is_float(leaf)]

    def forward(*arrays):
        given = iter(arrays)
        leaves = [next(given) if _is_float(leaf) else leaf for leaf in call.leaves]
        arguments, named = jax.tree.unflatten(call.structure, leaves)
        by_name = call.operation in PLAIN
        form = forms[call.operation] if by_name else forms.convolve_by_row
        return form(*arguments, **named)

    def both(arrays, cotangents):
        results, backward = jax.vjp(forward, *arrays)
        return results, backward(cotangents)

    # Not constants: XLA would compute with them while it compiles.
    shapes = jax.eval_shape(forward, *drawn)
    cotangents = jax.tree.map(functools.partial(_drawn, -1), shapes)
    return functools.partial(jax.jit(both), drawn, cotangents)


def _is_float(leaf):
    return isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _drawn(seed, shape):
    values = np.random.default_rng(seed + 1).standard_normal(shape.shape, np.float32)
    return jnp.asarray(values).astype(shape.dtype)


def timed(
    calls: Mapping[Call, int],
    rounds: int,
    timer: Callable[[dict[str, Callable], int], Mapping[str, list[float]]] = measure.in_turns,
) -> dict[str, Times]:
    """The times of each operation: medians of its calls, fast and plain in turns, added up."""
    columns: dict[str, list[Any]] = {}
    for call, count in calls.items():
        forms = {"fast": FAST, "plain": Forms("fast", frozenset([call.operation]))}
        # One call at a time: the arrays of all of them are more than a device holds.
        seconds = timer({kind: program(call, f) for kind, f in forms.items()}, rounds)
        fast, plain = (count * np.array(seconds[kind]) for kind in forms)
        row = count, np.median(fast), np.median(plain), plain - fast
        columns.setdefault(call.operation, []).append(row)
    found = {name: [sum(c) for c in zip(*rows, strict=True)] for name, rows in columns.items()}
    return {
        name: Times(calls, float(fast), float(plain), bool(np.all(differences < 0)))
        for name, (calls, fast, plain, differences) in found.items()
    }


def tuned(config: ConfigDict, *, batch: int = 0, rounds: int = 5, timer=measure.in_turns) -> dict:
    """Times the operations at an experiment's shapes and writes forms.json for this device.

    Args:
      batch: images at a time; 0: `config.train.batch_size`.
      rounds: turns that each form of an operation takes.
      timer: as `measure.in_turns`.

    Returns:
      The content of the file and its path, "file".

    Raises:
      UserError: the file cannot be written.
    """
    runtime.cache_compilations()
    config = config.copy_and_resolve_references()
    config.train.batch_size = batch or config.train.batch_size
    times = timed(recorded(config), rounds, timer)
    found = {
        "device": jax.local_devices()[0].device_kind,
        "jax": jax.__version__,
        "precision": config.model.precision,
        "head": config.model.head,
        "batch": config.train.batch_size,
        "crop_size": list(config.data.crop_size),
        "rounds": rounds,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "plain": [name for name, row in times.items() if row.taken == "plain"],
        "operations": {name: row._asdict() for name, row in times.items()},
    }
    return {**found, "file": str(measured_forms.write(config.model.precision, found))}


def table(found: Mapping[str, Any]) -> str:
    """The figures as text, in the order of the table of forms."""
    height, width = found["crop_size"]
    lines = [
        f"{found['device']}, jax {found['jax']}, {found['precision']}; {found['head']}, batch "
        f"{found['batch']} of {height}x{width}; a step's calls, forward and backward",
        f"{'operation':22} {'calls':>5} {'ms fast':>9} {'ms plain':>9}  taken",
    ]
    for name in schema.OPERATIONS:
        if name in found["operations"]:
            row = Times(**found["operations"][name])
            figures = f"{row.calls:5} {1e3 * row.fast:9.1f} {1e3 * row.plain:9.1f}  {row.taken}"
        elif name in NOT_ALONE:
            figures = f"{'':5} {'not measured alone':>19}  fast"
        else:
            figures = f"{'':5} {'not in this network':>19}  fast"
        lines.append(f"{name:22} {figures}")
    forms = measured_forms.in_words(found["plain"])
    return "\n".join(
        [
            *lines,
            f"plain is taken where it needs at most {MOST:.0%} of the time and is faster in every "
            "round; written to "
            f"{found['file']}: from now on config.model.forms='auto' is '{forms}' here",
        ]
    )
