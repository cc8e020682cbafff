"""Each fast form against its plain twin: values and gradients, borders and tiny maps included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastfcn_jax.models.ops import (
    bands,
    convolution,
    depthwise,
    encoding,
    forms,
    max_pool,
    phases,
    taps,
    winograd,
)
from fastfcn_jax.models.ops.pyramid_conv import Grid

FAST, PLAIN = forms.FAST, forms.Forms("plain")


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def assert_same(fast, plain, *arguments, atol=2e-5):
    """Compares values and the gradients of a random projection in every argument."""
    expected = jax.jit(plain)(*arguments)
    weights = noise(*expected.shape, seed=9)
    np.testing.assert_allclose(jax.jit(fast)(*arguments), expected, atol=atol)
    which = tuple(range(len(arguments)))
    gradients = [
        jax.jit(jax.grad(lambda *a, form=form: (form(*a) * weights).sum(), which))(*arguments)
        for form in (fast, plain)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=20 * atol), *gradients)


# Maps larger than the kernel's reach, smaller than it, smaller than the dilation; and of more rows
# than a GPU's loop takes, not a multiple of them; and more images than a CPU's blocks.
@pytest.mark.parametrize("size", [(2, 20, 23), (2, 3, 17), (2, 1, 2), (2, 65, 4), (17, 3, 4)])
@pytest.mark.parametrize("dilation", [1, 2, 8])
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_depthwise(size, dilation, platform, request):
    if platform == "gpu":
        request.getfixturevalue("gpu_forms")
    assert_same(
        lambda x, k: FAST.convolve(x, k, dilation=dilation),
        lambda x, k: PLAIN.convolve(x, k, dilation=dilation),
        noise(*size, 5),
        noise(3, 3, 1, 5, seed=1),
    )


def test_depthwise_keeps_bfloat16_and_sums_its_kernel_gradient_in_float32():
    x, kernel = noise(1, 40, 40, 3).astype(jnp.bfloat16), noise(3, 3, 1, 3).astype(jnp.bfloat16)

    def total(kind, x, k):
        return kind.convolve(x, k, dilation=2).astype(jnp.float32).sum()

    fast = jax.grad(lambda k: total(FAST, x, k))(kernel)
    wide = jax.grad(lambda k: total(PLAIN, x.astype(jnp.float32), k))
    assert fast.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        fast.astype(jnp.float32), wide(kernel.astype(jnp.float32)), rtol=0.01, atol=0.1
    )


@pytest.mark.parametrize("size", [(33, 40), (97, 131), (5, 3)])
@pytest.mark.parametrize("dilation", [1, 8, 12])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_depthwise_of_written_margins_is_that_of_read_ones(size, dilation, dtype):
    x, gradient = (noise(2, *size, 8, seed=seed).astype(dtype) for seed in (0, 1))
    kernel = noise(3, 3, 1, 8, seed=2).astype(dtype)
    padded = depthwise.pad_gradient(gradient, dilation)
    for found, expected in (
        (
            depthwise.convolve_padded(x, kernel, dilation),
            depthwise.convolve(x, kernel, dilation),
        ),
        (
            depthwise.input_gradient_padded(padded, kernel, dilation),
            depthwise.input_gradient(gradient, kernel, dilation),
        ),
    ):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.astype(jnp.float32), expected.astype(jnp.float32))
    expected = depthwise.kernel_gradient_by_blocks(x, gradient, 3, dilation)
    np.testing.assert_allclose(
        depthwise.kernel_gradient_padded(x, padded, 3, dilation),
        expected,
        atol=1e-5 * np.abs(expected).max(),
    )


def gradients_by_xla(x, kernel, gradient, dilation=1):
    return jax.vjp(lambda x, k: convolution.convolve(x, k, dilation), x, kernel)[1](gradient)


@pytest.mark.parametrize("size", [(20, 23), (3, 17), (1, 2)])
@pytest.mark.parametrize("dilation", [2, 12])
def test_convolution_by_taps(size, dilation):
    x, kernel, gradient = noise(2, *size, 5), noise(3, 3, 5, 4, seed=1), noise(2, *size, 4, seed=2)
    of_x, of_kernel = gradients_by_xla(x, kernel, gradient, dilation)
    y = convolution.convolve(x, kernel, dilation=dilation)
    np.testing.assert_allclose(taps.convolve(x, kernel, dilation), y, atol=2e-5)
    np.testing.assert_allclose(taps.input_gradient(gradient, kernel, dilation), of_x, atol=2e-5)
    np.testing.assert_allclose(taps.kernel_gradient(x, gradient, 3, dilation), of_kernel, atol=1e-4)


# Even and odd phases, long enough for padding and not, of one, two and three pixels, of two lengths
# on one axis, and more phases than pixels.
@pytest.mark.parametrize(
    ("size", "dilation"),
    [
        *(((8, 10), 1), ((7, 12), 1), ((13, 9), 1), ((1, 2), 1), ((1, 1), 1), ((3, 5), 1)),
        *(((8, 9), 2), ((33, 40), 12), ((33, 40), 36), ((7, 5), 3), ((16, 32), 4), ((1, 50), 5)),
    ],
)
def test_convolution_by_winograds_tiles(size, dilation):
    x, kernel, gradient = noise(2, *size, 5), noise(3, 3, 5, 4, seed=1), noise(2, *size, 4, seed=2)
    of_x, of_kernel = gradients_by_xla(x, kernel, gradient, dilation)
    y = convolution.convolve(x, kernel, dilation)
    by_tiles = jax.jit(
        lambda x, kernel, gradient: (
            winograd.convolve(x, kernel, dilation),
            winograd.input_gradient(gradient, kernel, dilation),
            winograd.kernel_gradient(x, gradient, 3, dilation),
        )
    )
    for got, expected, atol in zip(
        by_tiles(x, kernel, gradient), (y, of_x, of_kernel), (2e-5, 2e-5, 1e-4), strict=True
    ):
        np.testing.assert_allclose(got, expected, atol=atol)


@pytest.mark.parametrize(("dilation", "products"), [(12, 32768), (24, 30720), (36, 23552)])
def test_winograds_tiles_need_the_fewest_products(dilation, products):
    """ASPP's branches at 64x128, whose taps meet 60480, 48384 and 37440 pixels."""
    x, kernel = (
        jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 64, 128, 8), (3, 3, 8, 4))
    )
    program = jax.make_jaxpr(functools.partial(winograd.convolve, dilation=dilation))(x, kernel)
    made = sum(
        equation.outvars[0].aval.size // 4
        for equation in program.eqns
        if equation.primitive.name == "dot_general"
    )
    assert made <= 1.07 * products  # phases of eleven pixels are padded


@pytest.mark.parametrize("dilation", [1, 6])
def test_winograds_tiles_lose_little_to_rounding(dilation):
    """At the widest convolution of the models, against float64."""
    x, kernel = noise(1, 16, 16, 2048), noise(3, 3, 2048, 128, seed=1) * 0.01
    with jax.enable_x64(True):
        wide = [jnp.asarray(a, jnp.float64) for a in (x, kernel)]
        expected = np.asarray(convolution.convolve(*wide, dilation))
    errors = [
        np.abs(jax.jit(form.convolve, static_argnums=2)(x, kernel, dilation) - expected).max()
        for form in (winograd, convolution)
    ]
    assert errors[0] < 5e-6 * np.abs(expected).max()
    assert errors[0] < 8 * errors[1]


@pytest.mark.parametrize("size", [(20, 23), (3, 17), (1, 2)])
@pytest.mark.parametrize("dilation", [1, 2, 12])
@pytest.mark.parametrize(("channels", "features"), [(5, 4), (4, 6), (128, 130)])
def test_3x3_in_the_forms_of_this_backend(size, dilation, channels, features):
    assert_same(
        lambda x, k: FAST.convolve(x, k, dilation=dilation),
        lambda x, k: PLAIN.convolve(x, k, dilation=dilation),
        noise(2, *size, channels),
        noise(3, 3, channels, features, seed=1) * channels**-0.5,
    )


# Rows: more, as many, fewer than twice the dilation, fewer than the dilation. Channels and
# features either way round.
@pytest.mark.parametrize("size", [(30, 11), (24, 25), (14, 23), (7, 40)])
@pytest.mark.parametrize(("channels", "features"), [(5, 4), (4, 6)])
def test_convolution_by_bands(size, channels, features):
    x, kernel = noise(2, *size, channels), noise(3, 3, channels, features, seed=1)
    gradient = noise(2, *size, features, seed=2)
    of_x, of_kernel = gradients_by_xla(x, kernel, gradient, 12)
    y = convolution.convolve(x, kernel, dilation=12)
    np.testing.assert_allclose(bands.convolve(x, kernel, 12), y, atol=2e-5)
    np.testing.assert_allclose(bands.input_gradient(gradient, kernel, 12), of_x, atol=2e-5)
    np.testing.assert_allclose(bands.kernel_gradient(x, gradient, 3, 12), of_kernel, atol=1e-4)


# Whole phases and not, more of them than pixels.
@pytest.mark.parametrize(("size", "dilation"), [((12, 16), 4), ((13, 11), 2), ((3, 17), 5)])
def test_kernel_gradient_by_phases(size, dilation):
    x, gradient = noise(2, *size, 5), noise(2, *size, 4, seed=2)
    _, of_kernel = gradients_by_xla(x, noise(3, 3, 5, 4, seed=1), gradient, dilation)
    got = phases.kernel_gradient(x, gradient, 3, dilation)
    np.testing.assert_allclose(got, of_kernel, atol=1e-4)


@pytest.mark.usefixtures("gpu_forms")
@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (3, 1), (3, 2), (3, 12)])
def test_convolution_in_the_forms_of_a_gpu(kernel_size, dilation):
    assert_same(
        lambda x, k: FAST.convolve(x, k, dilation=dilation),
        lambda x, k: PLAIN.convolve(x, k, dilation=dilation),
        noise(2, 41, 30, 5),
        noise(kernel_size, kernel_size, 5, 4, seed=1),
    )


def test_a_3x3_takes_the_form_of_the_platform_that_its_program_is_for():
    def gradients(x, kernel, dilation):
        return jax.vjp(lambda x, k: FAST.convolve(x, k, dilation=dilation), x, kernel)[1](x)

    def text(platform, dilation, *arguments):
        program = jax.jit(functools.partial(gradients, dilation=dilation))
        return jax.export.export(program, platforms=[platform])(*arguments).mlir_module()

    def count(*arguments):
        program = text(*arguments)
        return program.count("stablehlo.convolution"), program.count("stablehlo.dot_general")

    def shapes(h, w, n):
        return tuple(jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, h, w, n), (3, 3, n, n)))

    narrow, wide = (shapes(20, 30, n) for n in (4, 128))
    assert count("cuda", 1, *wide) == (2, 0)
    assert count("cpu", 1, *wide) == (0, 16 + 16)
    assert count("cpu", 1, *narrow) == (2, 0)
    assert count("cpu", 1, *(a.update(dtype=jnp.bfloat16) for a in wide)) == (2, 0)
    # Far dilated: three bands, and a product for each row of taps; or a product for each tap.
    assert count("cuda", 12, *narrow) == (3, 3)
    assert count("cpu", 12, *narrow) == (0, 9 + 9)
    # Wide: the same on a GPU; by Winograd's tiles a product for each pair of mixes, three of rows
    # (phases of two pixels and one) and seven of columns (of three and two).
    assert count("cuda", 12, *wide) == (3, 3)
    assert count("cpu", 12, *wide) == (0, 21 + 21)
    near = shapes(64, 128, 4)
    assert count("cuda", 2, *near) == (2, 0)
    assert count("cuda", 2, *(a.update(dtype=jnp.bfloat16) for a in near)) == (2, 0)
    assert count("cpu", 2, *near) == (2, 0)
    # The gradient of a dilated kernel, left to jax, strides a window as large as the map.
    assert "stride = [2, 2]" not in text("cuda", 2, *near)
    # Kernels' gradients come before inputs' on a GPU, which no value would show.
    assert "optimization_barrier" in text("cuda", 1, *narrow)
    assert "optimization_barrier" not in text("cpu", 12, *narrow)


def test_winograds_tiles_are_taken_for_a_number_of_images_that_is_not_known():
    """As `export` lowers a model: at these widths the choice asks how many pixels there are."""
    (b,) = jax.export.symbolic_shape("b")
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((b, 20, 30, 128), (3, 3, 128, 128))]
    program = jax.export.export(jax.jit(FAST.convolve), platforms=["cpu"])(*shapes)
    assert program.mlir_module().count("stablehlo.dot_general") == 16


def test_plain_forms_are_xlas_own_operations_alike_for_every_platform():
    images, kernel = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, 40, 60, 4), (3, 3, 4, 4)))

    def network(kind, images, kernel):
        x = kind.convolve(kind["max pool"](images), kernel, 1, 2)
        x = kind["batch norm"](x, jnp.ones(4), jnp.zeros(4), None)[0]
        x = kind.convolve(kind["resize"](x, (64, 64)), kernel[:, :, :1], 1, 2)
        return kind["barrier"](
            kind["pyramid"](kind, [x[..., :2], Grid(x[:, :2, :2, :2])], kernel, False, None)
        )[0].sum()

    def text(kind, platform):
        program = jax.jit(jax.grad(functools.partial(network, kind)))
        lowered = program.trace(images, kernel).lower(lowering_platforms=(platform,))
        return lowered.as_text()

    assert text(PLAIN, "cpu") == text(PLAIN, "cuda")
    assert text(FAST, "cpu") != text(FAST, "cuda")
    assert "optimization_barrier" not in text(PLAIN, "cuda")


@pytest.mark.parametrize("size", [(8, 9), (7, 12), (1, 2)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 4), (2, 2)])
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_grouped(size, stride, dilation, platform, request):
    """More outputs than inputs a group: mixing up groups and channels would show."""
    if platform == "gpu":
        request.getfixturevalue("gpu_forms")
    assert_same(
        lambda x, k: FAST.convolve(x, k, stride, dilation),
        lambda x, k: PLAIN.convolve(x, k, stride, dilation),
        noise(2, *size, 6),
        noise(3, 3, 2, 9, seed=1),
    )


@pytest.mark.parametrize("size", [(8, 9), (7, 12), (1, 2)])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (3, 2)])
def test_strided_convolution_on_every_other_pixel(size, kernel_size, dilation):
    assert_same(
        lambda x, k: FAST.convolve(x, k, 2, dilation),
        lambda x, k: PLAIN.convolve(x, k, 2, dilation),
        noise(2, *size, 5),
        noise(kernel_size, kernel_size, 5, 4, seed=1),
    )


@pytest.mark.parametrize(
    ("size", "kernel_size", "align_corners"),
    [
        ((13, 17), 3, False),
        ((13, 17), 3, True),
        ((13, 17), 1, True),
        ((5, 5), 3, False),
        ((6, 6), 3, True),
        ((2, 1), 3, False),
    ],
)
def test_pyramid_bottleneck(size, kernel_size, align_corners):
    grids = [noise(2, s, s, 4, seed=s) for s in (1, 2, 3, 6)]
    kernel = noise(kernel_size, kernel_size, 5 + 4 * 4, 3, seed=1)

    def of(kind):
        def run(x, kernel, *grids):
            parts = [*map(Grid, grids[:1]), x, *map(Grid, grids[1:])]
            return kind["pyramid"](kind, parts, kernel, align_corners, None)

        return run

    assert_same(of(FAST), of(PLAIN), noise(2, *size, 5), kernel, *grids, atol=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("align_corners", [False, True])
def test_pyramid_bottleneck_of_a_padded_batch(align_corners):
    x, grids = noise(3, 12, 14, 5), [noise(3, s, s, 4, seed=s) for s in (1, 6)]
    kernel = noise(3, 3, 13, 3, seed=1)
    size = np.array([[12, 14], [5, 14], [7, 3]], np.int32)
    ours = jax.jit(
        lambda x, size: FAST["pyramid"](FAST, [x, *map(Grid, grids)], kernel, align_corners, size)
    )(x, size)
    for i, (h, w) in enumerate(size):
        parts = [x[i : i + 1, :h, :w], *(Grid(grid[i : i + 1]) for grid in grids)]
        alone = PLAIN["pyramid"](PLAIN, parts, kernel, align_corners, None)
        np.testing.assert_allclose(ours[i : i + 1, :h, :w], alone, atol=5e-5)


@pytest.mark.parametrize("counted", [False, True])
def test_encoding_is_the_sum_of_its_shared_residuals(counted):
    where = jnp.asarray(np.random.default_rng(2).random((2, 30, 1)) < 0.7) if counted else None

    def by_definition(x, codewords, scale):
        residual = x[:, :, None] - codewords
        share = jax.nn.softmax(scale * jnp.square(residual).sum(-1), axis=-1)
        share = share if where is None else jnp.where(where, share, 0.0)
        return (share[..., None] * residual).sum(1)

    assert_same(
        lambda *a: encoding.encode(*a, where),
        by_definition,
        noise(2, 30, 8),
        noise(4, 8, seed=1),
        -jnp.abs(noise(4, seed=2)) / 4,
        atol=1e-4,
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8, 9), (7, 12), (1, 2), (1, 1)])
def test_max_pool(size):
    assert_same(max_pool.max_pool, max_pool.max_pool_plain, noise(2, *size, 3))


# Whole numbers of a small range: windows tie, and sums of gradients are exact in any order.
@pytest.mark.parametrize("size", [(33, 40), (97, 131), (1, 2), (2, 1)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_max_pools_gradient_of_a_gpu_is_that_of_a_cpu(size, dtype):
    x = jnp.round(2 * noise(2, *size, 3)).astype(dtype)
    pooled = max_pool.max_pool_plain(x)
    gradient = jnp.round(9 * noise(*pooled.shape, seed=1)).astype(dtype)
    expected = max_pool.by_selections(x, gradient)
    found = max_pool.by_phases(x, gradient)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype(jnp.float32), expected.astype(jnp.float32))
