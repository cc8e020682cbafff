"""A model in a few lines: what it is made of, what it knows, how it was scored, how large it is."""

from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.inference.protocols import Protocol
from fastfcn_jax.weights.card import HEADS, NECKS

MAX_NAMED = 8  # classes


class Origin(NamedTuple):
    """Where a model came from.

    name: folder, file or registered name; "" for a model made in memory.
    step: how many steps it was trained; None: not known.
    miou: on its validation images, in percent; None: not known.
    """

    name: str = ""
    step: int | None = None
    miou: float | None = None


UNKNOWN = Origin()


def model(
    config: ConfigDict,
    info: DatasetInfo,
    variables: dict[str, Any],
    protocol: Protocol,
    origin: Origin,
) -> str:
    """The lines that `repr(model)` shows."""
    m = config.model
    named = ", ".join(info.class_names[:MAX_NAMED])
    more = ", …" if info.num_classes > MAX_NAMED else ""
    arrays = jax.tree.leaves(variables)
    count = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(variables["params"]))
    size = sum(x.nbytes for x in arrays)
    lines = [
        f"{m.backbone}, {NECKS[m.neck]}, {HEADS[m.head]} head ({m.lineage} lineage)",
        f"{info.num_classes} classes ({info.name}): {named}{more}",
        _scored(config, origin),
        f"{count / 1e6:.1f} million parameters, {size / 2**20:.1f} MiB",
        f"protocol {protocol.name}: {protocol.definition}",
    ]
    title = f"Model {origin.name}".strip()
    return "\n  ".join([title, *filter(None, lines)])


def _scored(config: ConfigDict, origin: Origin) -> str:
    published = config.published.miou
    parts = [
        f"step {origin.step}" if origin.step else "",
        f"mIoU {origin.miou:.2f} % on its validation images" if origin.miou is not None else "",
        f"published for its configuration: mIoU {published:.2f} %" if published else "",
    ]
    return ", ".join(filter(None, parts))
