"""What a share of an evaluation has counted: as bytes, and the shares of a whole joined.

Every number stays with its image and the sums are taken in the order of the images, so that the
last digit is the same however the images were shared.
"""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from fastfcn_jax import text

_EXTRA = "extra "  # before the name of a score's array


class Tally(NamedTuple):
    """The counts of some images of a data set.

    positions: where each image stands in the data set.
    ids: its name.
    matrix: confusion matrix of all of them, rows label.
    counts: for each image and class the pixels predicted correctly, labelled, and predicted.
    extras: by name of a score the numbers of each image that it is computed from.
    """

    positions: Int[np.ndarray, " n"]
    ids: tuple[str, ...]
    matrix: Int[np.ndarray, "k k"]
    counts: Int[np.ndarray, "n 3 k"]
    extras: dict[str, np.ndarray]


def join(tallies: Sequence[Tally]) -> Tally:
    """The tally of all images, in the order of the data set."""
    matrix = np.sum([tally.matrix for tally in tallies], axis=0)
    filled = [tally for tally in tallies if tally.ids]
    if not filled:
        return tallies[0]
    positions = np.concatenate([tally.positions for tally in filled])
    order = np.argsort(positions, kind="stable")
    ids = [name for tally in filled for name in tally.ids]
    return Tally(
        positions[order],
        tuple(ids[i] for i in order),
        matrix,
        np.concatenate([tally.counts for tally in filled])[order],
        {
            name: np.concatenate([tally.extras[name] for tally in filled])[order]
            for name in filled[0].extras
        },
    )


def pack(tally: Tally) -> bytes:
    """The tally in NumPy's .npz format."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays(tally))
    return file.getvalue()


def arrays(tally: Tally) -> dict[str, Any]:
    """The arrays of a tally by name; `from_arrays` reverses it."""
    return {
        "positions": tally.positions,
        "ids": np.array([text.escaped(name) for name in tally.ids], np.str_),
        "matrix": tally.matrix,
        "counts": tally.counts,
        **{f"{_EXTRA}{name}": rows for name, rows in tally.extras.items()},
    }


def unpack(data: bytes) -> Tally:
    """The tally that `pack` wrote."""
    with np.load(io.BytesIO(data)) as stored:
        return from_arrays(stored)


def from_arrays(stored) -> Tally:
    """The tally in a mapping that has the names of `arrays`, and perhaps others.

    Raises:
      KeyError: an array is missing.
    """
    return Tally(
        stored["positions"],
        tuple(map(text.unescaped, stored["ids"].tolist())),
        stored["matrix"],
        stored["counts"],
        {name.removeprefix(_EXTRA): stored[name] for name in stored if name.startswith(_EXTRA)},
    )
