"""Average pooling of feature maps, alone or inside a padded batch."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fastfcn_jax.models.ops.precision import wide_type, widen
from fastfcn_jax.models.padding import Size, blank_outside


def pooling_weights(
    bins: int, length: int, n, dtype: Any = np.float32
) -> Float[np.ndarray | Array, "*b s n"]:
    """Returns the averaging matrix of PyTorch's adaptive pooling: (bins, length), or with n (b,)
    a traced size (b, bins, length). Bin i covers [floor(i n / bins), ceil((i + 1) n / bins)).
    """
    xp = np
    if not isinstance(n, int):
        xp = jnp
        n = n[:, None, None]
    i = np.arange(bins, dtype=np.int32)[:, None]
    start, end = (i * n) // bins, -((-(i + 1) * n) // bins)
    position = np.arange(length, dtype=np.int32)
    covered = (position >= start) & (position < end)
    return xp.asarray(covered, dtype) / xp.asarray(end - start, dtype)


def average_pairs(
    x: Float[Array, "b h w c"], size: Size | None = None
) -> Float[Array, "b h2 w2 c"]:
    """Averages 2x2 with stride 2; an odd last row or column by what there is. Sums in float32.

    Equals `torch.nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)` on each image's true
    extent.
    """
    b, h, w, c = x.shape
    height, width = (h, w) if size is None else (size[:, 0], size[:, 1])
    odd = ((0, 0), (0, h % 2), (0, w % 2), (0, 0))
    wide = jnp.pad(widen(blank_outside(x, size)), odd)
    sums = wide.reshape(b, (h + 1) // 2, 2, (w + 1) // 2, 2, c).sum((2, 4))
    rows, columns = _pairs(height, (h + 1) // 2), _pairs(width, (w + 1) // 2)
    counts = rows[..., :, None, None] * columns[..., None, :, None]
    return (sums / counts.astype(sums.dtype)).astype(x.dtype)


def _pairs(n, count: int):
    """How many of the pixels 2i and 2i + 1 an image of n pixels has: (*b, count); 1 beyond it."""
    xp: Any = np if isinstance(n, int) else jnp
    first = 2 * np.arange(count, dtype=np.int32)
    return xp.clip(xp.asarray(n)[..., None] - first, 1, 2)


def pyramid_pool(
    x: Float[Array, "b h w c"], scales: tuple[int, ...], size: Size | None = None
) -> list[Float[Array, "b s s c"]]:
    """Returns adaptive average pools of x to s x s for each scale, reading x once.

    Equals `torch.nn.AdaptiveAvgPool2d(s)` on each image's true extent. Sums in float32.
    """
    b, h, w, c = x.shape
    height, width = (h, w) if size is None else (size[:, 0], size[:, 1])
    # One matrix for each image and line, though all are equal: with a single one XLA would
    # transpose the map before the product.
    rows = jnp.concatenate([pooling_weights(s, h, height, wide_type(x)) for s in scales], axis=-2)
    rows = jnp.broadcast_to(rows, (b, *rows.shape[-2:]))
    by_row = jnp.einsum("bsh,bhn->bsn", rows, widen(x).reshape(b, h, w * c)).reshape(b, -1, w, c)
    pools, start = [], 0
    for s in scales:
        columns = jnp.asarray(pooling_weights(s, w, width, wide_type(x)))
        columns = jnp.broadcast_to(columns.reshape(-1, 1, s, w), (b, s, s, w))
        lines = by_row[:, start : start + s]
        pools.append(jnp.einsum("bstw,bswc->bstc", columns, lines).astype(x.dtype))
        start += s
    return pools
