"""Multiply-accumulates of a model, counted analytically part by part.

Convolutions, linear layers and the Encoding layer count; normalisation, activation, pooling,
resizing and biases do not (the counting rule of the references' published tables). What is
counted is the network as defined, whatever exact rewrite computes it.
"""

import math
from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastfcn_jax.models.heads import Encoding
from fastfcn_jax.models.layers import Conv, DepthwiseConv, Linear
from fastfcn_jax.models.ops.pyramid_conv import channels
from fastfcn_jax.models.segmentor import Segmentor


def count(model: Segmentor, height: int, width: int, *, auxiliary: bool = True) -> dict[str, int]:
    """Returns multiply-accumulates of one (height, width) image per part.

    Parts: stem, layer1 to layer4, neck, decode_head and, if asked for, auxiliary_head.
    """
    macs: Counter[str] = Counter()

    def watch(call, args, kwargs, context):
        result = call(*args, **kwargs)
        if context.method_name == "__call__":
            cost = _cost(context.module, args, result)
            if cost:
                macs[_part(context.module.path)] += cost
        return result

    images = jnp.zeros((1, height, width, 3))
    with nn.intercept_methods(watch):
        variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
        macs.clear()
        jax.eval_shape(lambda v: model.apply(v, images, auxiliary=auxiliary), variables)
    return dict(macs)


def parameters(variables: dict) -> dict[str, int]:
    """Returns the number of parameters of each part (the state's statistics not included)."""
    sizes: Counter[str] = Counter()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        sizes[_part(tuple(key.key for key in path))] += math.prod(leaf.shape)
    return dict(sizes)


def _cost(module, args, result) -> int:
    if isinstance(module, Conv):
        x = args[0]
        c_in = channels(x) if isinstance(x, list) else x.shape[-1]
        return result.size * module.kernel_size**2 * c_in // module.groups
    if isinstance(module, DepthwiseConv):
        return result.size * 9
    if isinstance(module, Linear):
        return result.size * args[0].shape[-1]
    if isinstance(module, Encoding):  # distances and sums: two products of pixels and codes
        return 2 * args[0].size * module.num_codes
    return 0


def _part(path: tuple[str, ...]) -> str:
    if path[0] != "backbone":
        return path[0]
    return path[1].split("_")[0] if path[1].startswith("layer") else "stem"
