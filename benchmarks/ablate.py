r"""What each special form earns: the whole program with one form at a time in its plain place.

python benchmarks/ablate.py --show=train,inference --head=psp --batch=2 --height=256 --width=256
PYTHONPATH=DIR python benchmarks/ablate.py --gpu --head=psp,aspp,enc  # DIR: see gpu_program.py

On this machine's CPU: compile time, temporary memory, and the median seconds of a run, all variants
in turns in one process, float32. With --gpu: what `gpu_program.py` reads from the program for an
H200, bfloat16, batch 8. `--without` names the variants; the first row is the model as it is.
"""

import contextlib
import functools
import json
import os
import statistics
import sys
import time
from unittest import mock

if "--gpu" not in sys.argv:
    os.environ["JAX_PLATFORMS"] = "cpu"
import gpu_program
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from contenders import Job

from fastfcn_jax import models
from fastfcn_jax.models import folding, heads, jpu, layers, resnet, spatial
from fastfcn_jax.models.ops import (
    bands,
    batch_norm,
    convolution,
    depthwise,
    encoding,
    joint,
    max_pool,
    phases,
    taps,
)
from fastfcn_jax.training import losses, optim, state, step

flags.DEFINE_bool("gpu", False, "Compile for an H200 instead of running here.")
flags.DEFINE_integer("rounds", 5, "On a CPU: runs of each variant, in turns.")
flags.DEFINE_list("without", None, "Variants; all by default.")
flags.DEFINE_bool("inference", False, "The folded network instead of a training step.")


def _cpu(form):
    """form(x, kernel, dilation) -> Form or None, asked before the table."""
    asked = convolution.form_on_cpu

    def choose(x, kernel, dilation):
        return form(x, kernel, dilation) or asked(x, kernel, dilation)

    return mock.patch.object(convolution, "form_on_cpu", choose)


def _gpu(form):
    asked = convolution.form_on_gpu

    def choose(x, kernel, dilation):
        return form(x, kernel, dilation) or asked(x, kernel, dilation)

    return mock.patch.object(convolution, "form_on_gpu", choose)


def _by_xla(x, kernel):
    return convolution._with_gradients_of_jax(
        functools.partial(convolution.convolve_direct), x, kernel
    )


def _xla_dilated(x, kernel, dilation):
    return convolution._with_gradients_of_jax(
        functools.partial(convolution.convolve_direct, dilation=dilation), x, kernel
    )


def no_winograd(x, kernel, dilation):
    if kernel.shape[0] == 3 and dilation == 1:
        return convolution._dilated(
            1,
            convolution.convolve_direct,
            convolution._input_gradient_direct,
            bands.kernel_gradient,
        )


def narrow_by_xla(x, kernel, dilation):
    """3x3 that neither Winograd nor taps take."""
    asked = ORIGINAL_CPU(x, kernel, dilation)
    if getattr(asked.kernel_gradient, "func", None) is bands.kernel_gradient:
        return _xla_dilated(x, kernel, dilation)


ORIGINAL_CPU = convolution.form_on_cpu


def one_by_xla(x, kernel, dilation):
    if kernel.shape[0] == 1:
        return _by_xla(x, kernel)


def one_by_product(x, kernel, dilation):
    if kernel.shape[0] == 1:
        return convolution._with_gradients_of_jax(convolution._product, x, kernel)


def one_by_taps(x, kernel, dilation):
    if kernel.shape[0] == 1:
        by_taps = functools.partial(taps.kernel_gradient, size=1)
        return convolution._dilated(dilation, taps.convolve, taps.input_gradient, by_taps)


def dilated_by_xla(x, kernel, dilation):
    if kernel.shape[0] == 3 and dilation > 1:
        return _xla_dilated(x, kernel, dilation)


def no_bands(x, kernel, dilation):
    if kernel.shape[0] == 3 and dilation > 1:
        return convolution._dilated(
            dilation,
            convolution.convolve_direct,
            convolution._input_gradient_direct,
            phases.kernel_gradient,
        )


def bands_for_phases(x, kernel, dilation):
    asked = ORIGINAL_GPU(x, kernel, dilation)
    if getattr(asked.kernel_gradient, "func", None) is phases.kernel_gradient:
        return asked._replace(
            kernel_gradient=functools.partial(bands.kernel_gradient, dilation=dilation)
        )


ORIGINAL_GPU = convolution.form_on_gpu


def plain_depthwise_gradient(x, gradient, dilation):
    """Nine sums of products, left to XLA."""
    wide = gradient.astype(jnp.float32)
    sums = [
        (shifted.astype(jnp.float32) * wide).sum((0, 1, 2))
        for _, _, shifted in depthwise._shifts(x, dilation)
    ]
    return jnp.stack(sums).reshape(3, 3, 1, -1)


def einsum_depthwise_gradient(x, gradient, dilation):
    sums = [
        jnp.einsum("bhwc,bhwc->c", s, gradient, preferred_element_type=jnp.float32)
        for _, _, s in depthwise._shifts(x, dilation)
    ]
    return jnp.stack(sums).reshape(3, 3, 1, -1)


def simple_statistics(x, axis_name=None):
    wide = batch_norm.widen(x)
    pixels = wide.reshape(len(x), -1, x.shape[-1])
    stride = -(-pixels.shape[1] // max(1, 16 // len(x)))
    near = jax.lax.stop_gradient(pixels[:, stride // 2 :: stride].mean((0, 1)))
    axes = tuple(range(x.ndim - 1))
    offset, square = (wide - near).mean(axes), jnp.square(wide - near).mean(axes)
    mean, var = near + offset, square - jnp.square(offset)
    if axis_name is not None:
        both = jax.lax.all_gather(jnp.stack((mean, var)), axis_name)
        means, variances = both[:, 0], both[:, 1]
        mean = means.mean(0)
        var = (variances + jnp.square(means - mean)).mean(0)
    return mean, jnp.maximum(var, 0.0)


def simple_norm(x, scale, bias, axis_name=None):
    mean, var = simple_statistics(x, axis_name)
    factor = jax.lax.rsqrt(var + batch_norm.EPS) * scale
    y = ((batch_norm.widen(x) - mean) * factor + bias).astype(x.dtype)
    return y, jax.lax.stop_gradient(mean), jax.lax.stop_gradient(var)


def checkpointed_norm(x, scale, bias, axis_name=None):
    return jax.checkpoint(lambda x, s, b: simple_norm(x, s, b, axis_name), prevent_cse=False)(
        x, scale, bias
    )


@contextlib.contextmanager
def both_patches(norm):
    with (
        mock.patch.object(layers, "batch_norm", norm),
        mock.patch.object(layers, "statistics", simple_statistics),
    ):
        yield


def not_deferred():
    return mock.patch.object(
        layers, "DeferredBatchNorm", lambda common, name: layers.BatchNorm(common, name=name)
    )


def pool_where(x):
    for axis in (2, 1):
        a, b, c = max_pool._windows(x, axis)
        m = jnp.where((b > a) | (b != b), b, a)
        x = jnp.where((c > m) | (c != c), c, m)
    return x


def gpu_taps_gradient(x, kernel, dilation):
    if kernel.shape[0] == 3 and dilation > 1:
        asked = ORIGINAL_GPU(x, kernel, dilation)
        return asked._replace(
            kernel_gradient=functools.partial(taps.kernel_gradient, size=3, dilation=dilation)
        )


def interpolate_autodiff(x, axis, t):
    low, high = (jnp.take(x, i, axis=axis, mode="clip") for i in (t.low, t.high))
    return spatial._blend(low, high, jnp.asarray(t.weight)[None], axis)


def plain_norm(grads):
    return jnp.sqrt(sum(jnp.square(g).sum() for g in jax.tree.leaves(grads)))


def plain_select(finite, new, old):
    return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)


def plain_pool(x, scales, size=None):
    _, h, w, _ = x.shape
    pools = []
    for s in scales:
        rows, columns = (spatial.pooling_weights(s, n, n) for n in (h, w))
        y = jnp.einsum("sh,bhwc->bswc", rows, x.astype(jnp.float32))
        pools.append(jnp.einsum("tw,bswc->bstc", columns, y).astype(x.dtype))
    return pools


def all_strides(x, kernel, stride=1, dilation=1):
    if kernel.shape[0] in (1, 3) and stride == 1:
        return convolution._convolve_at_stride_1(x, kernel, dilation)
    return convolution.convolve_direct(x, kernel, stride, dilation)


def no_barrier(where):
    """Barriers of one module are identities."""
    fake = mock.Mock(wraps=jax.lax)
    fake.optimization_barrier = lambda x: x

    class Jax:
        lax = fake

        def __getattr__(self, name):
            return getattr(jax, name)

    return mock.patch.object(where, "jax", Jax())


def unordered_backward(dilation, saved, gradient):
    def on(choose):
        def both(x, kernel, gradient):
            form = choose(x, kernel, dilation)
            of_kernel = form.kernel_gradient(x, gradient).astype(kernel.dtype)
            return form.input_gradient(gradient, kernel), of_kernel

        return both

    return jax.lax.platform_dependent(
        *saved,
        gradient,
        cpu=on(lambda *a: convolution.form_on_cpu(*a)),
        default=on(lambda *a: convolution.form_on_gpu(*a)),
    )


@contextlib.contextmanager
def unordered():
    conv = convolution._convolve_at_stride_1
    conv.defvjp(convolution._forward, unordered_backward)
    yield
    conv.defvjp(convolution._forward, convolution._backward)


def attr(module, name, value):
    return lambda: mock.patch.object(module, name, value)


VARIANTS = {
    "as it is": contextlib.nullcontext,
    "winograd": lambda: _cpu(no_winograd),
    "3x3 narrow by XLA": lambda: _cpu(narrow_by_xla),
    "1x1 by XLA": lambda: _cpu(one_by_xla),
    "1x1 by product": lambda: _cpu(one_by_product),
    "dilated by XLA": lambda: _cpu(dilated_by_xla),
    "gpu 1x1 by XLA": lambda: _gpu(one_by_xla),
    "gpu 1x1 by taps": lambda: _gpu(one_by_taps),
    "gpu dilated by XLA": lambda: _gpu(dilated_by_xla),
    "gpu no bands": lambda: _gpu(no_bands),
    "gpu bands for phases": lambda: _gpu(bands_for_phases),
    "gpu unordered": unordered,
    "depthwise": attr(layers, "depthwise_conv", depthwise.depthwise_conv_direct),
    "depthwise rows": attr(depthwise, "_sums_of_blocks", depthwise._sums_of_rows),
    "depthwise blocks": attr(depthwise, "_sums_of_rows", depthwise._sums_of_blocks),
    "depthwise plain sums": attr(depthwise, "kernel_gradient", plain_depthwise_gradient),
    "depthwise einsum": attr(depthwise, "kernel_gradient", einsum_depthwise_gradient),
    "batch norm": attr(layers, "batch_norm", batch_norm.batch_norm_direct),
    "batch norm sums together": attr(batch_norm, "_sums_apart", batch_norm._sums_together),
    "batch norm sums apart": attr(batch_norm, "_sums_together", batch_norm._sums_apart),
    "norm simple": lambda: both_patches(simple_norm),
    "norm checkpointed": lambda: both_patches(checkpointed_norm),
    "statistics simple": attr(layers, "statistics", simple_statistics),
    "deferred norm": not_deferred,
    "max pool": attr(resnet, "max_pool", max_pool.max_pool_direct),
    "max pool where": attr(resnet, "max_pool", pool_where),
    "gpu taps gradient": lambda: _gpu(gpu_taps_gradient),
    "joint": attr(layers, "joint_conv", joint.joint_conv_direct),
    "encoding": attr(heads, "encode", encoding.encode_direct),
    "resize gradient": attr(spatial, "_interpolate_alike", interpolate_autodiff),
    "resize one reduce": attr(spatial, "SHORT_RUN", 0),
    "resize two sums": attr(spatial, "SHORT_RUN", 10**6),
    "norm": attr(step, "_global_norm", plain_norm),
    "select": attr(step, "_select", plain_select),
    "in turn": attr(losses, "_backwards_in_turn", lambda *both: both),
    "pool": attr(heads, "pyramid_pool", plain_pool),
    "strided": attr(layers, "convolve", all_strides),
    "jpu barrier": lambda: no_barrier(jpu),
}


def on_cpu(config, name):
    """Returns (compiled, arguments) of a training step or of the folded network."""
    f = flags.FLAGS
    model = models.build(config.model, f.num_classes)
    job = Job(config.model.head, "train", f.height, f.width, f.batch, f.num_classes, False, "")
    variables = initial(config)
    if f.inference:
        images = models.normalize(jnp.asarray(job.images()))
        folded = folding.folded(model)
        return jax.jit(lambda v, x: folded.apply(v, x).logits), (folding.fold(variables), images)
    optimizer = optim.build(config, variables)
    run = step.make_train_step(model, optimizer, num_classes=f.num_classes, loss={}, seed=0)
    size = np.full((f.batch, 2), (f.height, f.width), np.int32)
    batch = {"image": job.images(), "label": job.labels(), "size": size}
    return jax.jit(run), (state.create(variables, optimizer), batch)


@functools.cache
def _initial(head, classes, config):
    model = models.build(config.model, classes)
    v = jax.jit(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))()
    return jax.tree.map(np.asarray, dict(v))


_kept = {}


def initial(config):
    key = config.model.head
    if key not in _kept:
        _kept[key] = _initial.__wrapped__(key, flags.FLAGS.num_classes, config)
    return _kept[key]


def measure(config):
    f = flags.FLAGS
    programs, rows = {}, {}
    args = None
    for name in names():
        jax.clear_caches()
        with VARIANTS[name]():
            program, arguments = on_cpu(config, name)
            args = args or jax.device_put(arguments)
            lowered = program.lower(*args)
            start = time.perf_counter()
            programs[name] = lowered.compile()
        temp = programs[name].memory_analysis().temp_size_in_bytes / 2**30
        rows[name] = {"compile": time.perf_counter() - start, "temp": temp, "seconds": []}
        print(f"  compiled {name} in {rows[name]['compile']:.1f} s, {temp:.2f} GiB", flush=True)
    for r in range(f.rounds + 1):
        for name, run in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(*args))
            if r:
                rows[name]["seconds"].append(time.perf_counter() - start)
    base = statistics.median(rows["as it is"]["seconds"])
    for name, row in rows.items():
        m = statistics.median(row["seconds"])
        print(
            f"{config.model.head} {name:28} {m:7.3f} s  x{m / base:5.3f}  "
            f"compile {row['compile']:6.1f}  temp {row['temp']:5.2f} GiB",
            flush=True,
        )
    return rows


def names():
    return list(dict.fromkeys(["as it is", *(flags.FLAGS.without or VARIANTS)]))


def main(_):
    f = flags.FLAGS
    if f.gpu:
        gpu_program.header()
    for name, config in gpu_program.experiments():
        config.model.dropout = config.model.dropout
        if f.gpu:
            for variant in names():
                jax.clear_caches()
                start = time.perf_counter()
                with VARIANTS[variant]():
                    c = (
                        gpu_program.inference(config)
                        if f.inference
                        else gpu_program.training(config, 1)
                    )
                seconds = time.perf_counter() - start
                gpu_program.describe(f"{name} w/o {variant} ({seconds:.0f} s)", c)
        else:
            config.model.precision = "float32"
            print(json.dumps({"head": config.model.head, "rows": measure(config)}))


if __name__ == "__main__":
    app.run(main)
