"""Upsampling on the device: memory, and its sparse interpolation weights."""

import functools

import jax
import numpy as np
import pytest

from fastfcn_jax.inference.merge import merge
from fastfcn_jax.inference.upsampling import Taps, axis_matrices, taps_of


@pytest.mark.parametrize("softmax", [False, True])
def test_no_full_size_class_map_is_stored(softmax):
    """Buffers have the size of a few row blocks: twice the rows need hardly more memory."""
    width, classes = 512, 64

    def temporary_bytes(height: int) -> int:
        shape = functools.partial(jax.ShapeDtypeStruct, dtype=np.float32)
        small = shape((1, height // 8, width // 8, classes))
        rows = shape((1, height, height // 8))
        columns = Taps(jax.ShapeDtypeStruct((1, width), np.int32), shape((1, width, 3)))
        program = jax.jit(functools.partial(merge, softmax=softmax))
        compiled = program.lower([small] * 2, [rows] * 2, [columns] * 2).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    added_map = 1024 * width * classes * 4
    assert temporary_bytes(2048) - temporary_bytes(1024) < added_map / 10


@pytest.mark.parametrize(("scaled", "own"), [(683, 500), (512, 512), (500, 1333), (24, 90)])
@pytest.mark.parametrize("flip", [False, True])
def test_three_neighbours_hold_the_whole_row(scaled, own, flip):
    (matrix,) = axis_matrices(((0, scaled),), scaled, own, -(-scaled // 8) + 2, flip=flip)
    taps = taps_of(matrix)
    dense = np.zeros((own, max(matrix.shape[1], 3)), np.float32)
    for t in range(3):
        dense[np.arange(own), taps.start + t] += taps.weight[:, t]
    np.testing.assert_array_equal(dense[:, : matrix.shape[1]], matrix)
    np.testing.assert_allclose(taps.weight.sum(1), 1, atol=1e-6)


def test_overlapping_windows_share_their_weight():
    matrices = axis_matrices(((0, 48), (20, 68), (27, 75)), 75, 90, 6)
    np.testing.assert_allclose(sum(m.sum(1) for m in matrices), 1, atol=1e-6)
    assert (matrices[2][:20] == 0).all()
