"""FLOPs of traced programs against hand formulas and published figures."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import lax
from jax.experimental import pallas as pl

from avt_jax import tree
from avt_jax.models import layers, scopes
from avt_jax.models.encoders import ast, uniformer
from avt_jax.models.fusions.bottleneck import AVBottleneck
from avt_jax.models.fusions.merged import MergedAttention
from avt_jax.models.kernels.attention import dot_product_attention
from avt_jax.models.kernels.depthwise_conv import depthwise_conv3d
from avt_jax.profiling import flops

SQUARE = jax.ShapeDtypeStruct((64, 64), jnp.float32)
PRODUCT = 2 * 64**3


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def repeated(times, **how):
    return lambda x: lax.scan(lambda c, _: (c @ c, None), x, length=times, **how)[0]


def squared_while_positive(x):
    return lax.while_loop(lambda c: (c @ c)[0, 0] > 0, lambda c: c @ c, x)


def gradient(function):
    """The function's results and the gradients of all its arguments."""

    def both(*args):
        out, back = jax.vjp(function, *args)
        return out, back(out)

    return both


@pytest.mark.parametrize(
    "function,products",
    [
        (lambda x: x @ x, 1),
        (lambda x: jnp.sin(x) + x.sum(), 0),
        (lambda x: lax.fori_loop(0, 10, lambda i, c: c @ c, x), 10),
        (lambda x: lax.map(lambda row: row @ x, x), 1),
        (repeated(7, unroll=3), 7),
        # A loop in a loop, behind a nested jit that is called twice.
        (lambda x: sum(jax.jit(lambda y: repeated(3)(repeated(5)(y)))(x + i) for i in (1, 2)), 16),
        (lambda x: lax.scan(lambda c, _: (repeated(3)(c) @ c, None), x, length=5)[0], 20),
        (squared_while_positive, 2),  # once each, condition and body
        (lambda x: lax.cond(x[0, 0] > 0, repeated(3), lambda y: y @ y, x), 3),
        (jax.remat(repeated(3)), 3),
        (jax.vmap(lambda row: row @ row), 1 / 64),
        (gradient(lambda x: jnp.square(x) @ x), 3),
        (gradient(repeated(4)), 12),
        # Recomputed: forward, forward again, and two products backward for each.
        (gradient(jax.remat(lambda x: jnp.sin(jnp.sin(x @ x) @ x))), 8),
    ],
)
def test_matrix_products(function, products):
    assert flops.total(function, SQUARE) == products * PRODUCT


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (lax.fori_loop(0, 10, lambda i, c: c @ c, x), x @ x)[1],
        # Not needed of what a nested program gives.
        lambda x: jax.jit(lambda y: (repeated(3)(y), y @ y))(x)[1],
        lambda x: lax.scan(lambda c, _: (c @ c, c @ x), x, length=1)[0],
        jax.remat(lambda x: (x @ x, (x @ x) @ x)[0]),
    ],
)
def test_what_no_result_needs_is_not_counted(function):
    assert flops.total(function, SQUARE) == PRODUCT


def test_the_count_is_an_accelerators_on_any_machine():
    def ten(x):
        return lax.fori_loop(0, 10, lambda i, c: c @ c, x)

    chosen = lambda x: lax.platform_dependent(x, cpu=ten, default=lambda x: x @ x)  # noqa: E731
    assert flops.total(chosen, SQUARE) == PRODUCT
    assert flops.total(gradient(chosen), SQUARE) == 3 * PRODUCT
    other = flops.total(
        lambda x: lax.platform_dependent(x, cpu=lambda x: x @ x, default=ten), SQUARE
    )
    assert other == 10 * PRODUCT


def test_what_the_backward_pass_computes_again():
    def count(function):
        return flops.of_step(jax.jit(gradient(function)).trace(SQUARE).jaxpr.jaxpr)

    def twice(x):
        return jnp.sin(jnp.sin(x @ x) @ x)

    assert count(twice) == (6 * PRODUCT, 0)
    assert count(jax.remat(twice)) == (8 * PRODUCT, 2 * PRODUCT)
    many = gradient(lambda x: lax.scan(lambda c, _: (jax.remat(twice)(c), None), x, length=5)[0])
    assert flops.of_step(jax.jit(many).trace(SQUARE).jaxpr.jaxpr) == (40 * PRODUCT, 10 * PRODUCT)


def test_every_device_of_a_manual_mesh_counts():
    mesh = jax.make_mesh((4,), ("x",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    rows = jax.sharding.PartitionSpec("x")
    whole = jax.sharding.PartitionSpec()
    local = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(rows, whole), out_specs=rows)
    assert flops.total(local, SQUARE, SQUARE) == PRODUCT


def test_every_block_of_a_pallas_kernel_counts():
    def kernel(left, right, out):
        out[...] = left[...] @ right[...]

    rows = pl.BlockSpec((16, 64), lambda i: (i, 0))
    whole = pl.BlockSpec((64, 64), lambda i: (0, 0))
    given = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    product = pl.pallas_call(
        kernel, out_shape=given, grid=(4,), in_specs=[rows, whole], out_specs=rows
    )
    assert flops.total(product, SQUARE, SQUARE) == PRODUCT
    repeatedly = jax.jit(lambda x: lax.fori_loop(0, 3, lambda i, c: product(c, x), x @ x))
    jaxpr = repeatedly.trace(SQUARE).jaxpr.jaxpr
    assert flops.of_step(jaxpr) == (4 * PRODUCT, 0) and flops.in_pallas(jaxpr) == 3 * PRODUCT


def convolution(**how):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lambda x, kernel: lax.conv_general_dilated(x, kernel, dimension_numbers=numbers, **how)


@pytest.mark.parametrize(
    "how,kernel,macs",
    [
        (dict(window_strides=(1, 1), padding="SAME"), (3, 5, 6, 10), 12 * 16 * 10 * 3 * 5 * 6),
        (dict(window_strides=(4, 4), padding="VALID"), (4, 4, 6, 10), 3 * 4 * 10 * 4 * 4 * 6),
        (
            dict(window_strides=(1, 1), padding="SAME", feature_group_count=3),
            (3, 3, 2, 9),
            12 * 16 * 9 * 3 * 3 * 2,
        ),
        (
            dict(window_strides=(1, 1), padding="SAME", feature_group_count=6),
            (3, 3, 1, 6),
            12 * 16 * 6 * 3 * 3,
        ),
        (
            dict(window_strides=(1, 1), padding="VALID", rhs_dilation=(2, 2)),
            (3, 3, 6, 10),
            8 * 12 * 10 * 3 * 3 * 6,
        ),
        # Transposed: each value of the input meets the whole kernel.
        (
            dict(window_strides=(1, 1), padding=((3, 3), (3, 3)), lhs_dilation=(4, 4)),
            (4, 4, 6, 10),
            12 * 16 * 6 * 4 * 4 * 10,
        ),
    ],
)
def test_convolutions(how, kernel, macs):
    batch = 2
    function, args = convolution(**how), (shape(batch, 12, 16, 6), shape(*kernel))
    found = flops.total(function, *args)
    if "lhs_dilation" in how:
        # At the borders the last rows and columns of zeros are missing or there: 51 for 48.
        assert 2 * batch * macs <= found < 1.2 * 2 * batch * macs
    else:
        assert found == 2 * batch * macs
    if how["padding"] == "SAME" or how["window_strides"] == (4, 4):
        assert flops.total(gradient(function), *args) == 3 * found


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("wrap", [lambda function: function, jax.remat, jax.jit])
def test_depthwise_convolution_counts_as_what_it_stands_for(size, wrap):
    x, kernel = shape(2, 6, 8, 10, 16), shape(size, size, size, 16)
    once = 2 * 2 * 6 * 8 * 10 * 16 * size**3
    function = wrap(depthwise_conv3d)
    assert flops.total(function, x, kernel) == once
    assert flops.total(jax.grad(lambda *args: function(*args).sum()), x, kernel) == once
    assert flops.total(jax.grad(lambda *args: function(*args).sum(), (0, 1)), x, kernel) == 2 * once
    assert flops.total(gradient(function), x, kernel) == 3 * once
    many = jax.vmap(function, in_axes=(0, None))
    assert flops.total(many, shape(3, *x.shape), kernel) == 3 * once
    each = gradient(jax.vmap(function))
    assert flops.total(each, shape(3, *x.shape), shape(3, *kernel.shape)) == 9 * once


def test_depthwise_convolution_counts_as_the_grouped_convolution():
    def grouped(x, kernel):
        numbers = ("NDHWC", "DHWIO", "NDHWC")
        return lax.conv_general_dilated(
            x,
            kernel[..., None, :],
            (1, 1, 1),
            "SAME",
            dimension_numbers=numbers,
            feature_group_count=x.shape[-1],
        )

    args = shape(2, 6, 8, 10, 16), shape(3, 5, 3, 16)
    for wrap in (lambda function: function, gradient):
        assert flops.total(wrap(depthwise_conv3d), *args) == flops.total(wrap(grouped), *args) > 0


# A short one, whose heads go at once, and one whose heads a CPU takes one by one.
@pytest.mark.parametrize("n,m", [(30, 20), (600, 900)])
@pytest.mark.parametrize("remat", [False, True])
def test_attention_is_two_products_in_every_form(n, m, remat):
    b, h, d = 1, 12, 64
    args = shape(b, n, h, d), shape(b, m, h, d), shape(b, m, h, d)
    attention = layers.dot_product_attention
    once = 2 * 2 * b * h * n * m * d
    assert flops.total(attention, *args) == once
    wrapped = jax.remat(attention) if remat else attention
    assert flops.total(gradient(wrapped), *args) == (4 if remat else 3) * once


def transformer_block(n, d, ratio):
    """Multiply-adds: queries, keys, values and output; attention's two products; the MLP."""
    return 4 * n * d * d + 2 * n * n * d + 2 * n * d * int(d * ratio)


def count_module(build, *args, **how):
    """FLOPs of a module's call, its weights as shapes."""
    skeleton = tree.Skeleton(build)
    return flops.total(
        lambda params, stats, *args: skeleton.merge(params, stats)(*args, **how),
        skeleton.params,
        skeleton.stats,
        *args,
    )


def test_attention_in_a_recomputed_loop_in_the_form_for_tpus():
    """What it is padded with are constants, which leave the loop in a call of the same name."""
    n, length = 402, 3
    product = 2 * 2 * n**2 * 2 * 64

    def layer(x, _):
        return dot_product_attention(x, x, x), None

    def function(x):
        return lax.scan(jax.checkpoint(layer), x, length=length)[0].sum()

    x = jax.ShapeDtypeStruct((2, n, 2, 64), jnp.bfloat16)
    step = jax.make_jaxpr(jax.grad(function))(x).jaxpr
    # Two products forward, the same again, and four backward.
    assert flops.of_step(step) == (length * 8 * product, length * 2 * product)


def test_transformer_block():
    n, d = 50, 48
    found = count_module(
        lambda: layers.TransformerBlock(d, 4, mlp_ratio=3.0, dtype=jnp.float32, rngs=nnx.Rngs(0)),
        shape(2, n, d),
    )
    assert found == 2 * 2 * transformer_block(n, d, 3.0)


@pytest.mark.parametrize("n,m", [(300, 100), (0, 100), (300, 0)])
def test_fusion_through_the_bottleneck(n, m):
    k, length, d = 3, 4, 64
    tokens = [shape(1, x, d) if x else None for x in (n, m)]

    def build():
        return AVBottleneck(d, 4, num_blocks=k, num_bottleneck=length, rngs=nnx.Rngs(0))

    formula = k * sum(transformer_block(x + length, d, 4.0) for x in (n, m) if x)
    assert count_module(build, *tokens) == 2 * formula


def test_merged_fusion():
    n, m, k, d = 300, 100, 3, 64
    found = count_module(
        lambda: MergedAttention(d, 4, num_blocks=k, rngs=nnx.Rngs(0)),
        shape(1, n, d),
        shape(1, m, d),
    )
    assert found == 2 * k * transformer_block(n + m, d, 4.0)


@pytest.mark.parametrize("options", [{}, dict(split=True, std=True)])
def test_uniformer_by_hand(options):
    config = dataclasses.replace(uniformer.VARIANTS["tiny"], **options)
    frames, side, classes = 6, 72, 7
    t, side, channels, total = 3, side // 4, 3, 0
    for stage, (depth, dim) in enumerate(zip(config.depth, config.dim, strict=True)):
        space, taps = side * side, 3 * 16 if stage == 0 else (3 if config.std else 1) * 4
        n = t * space
        mlp = 2 * n * dim * int(dim * config.mlp_ratio)
        if stage < 2:
            block = (27 + 125) * n * dim + 2 * n * dim * dim + mlp
        elif config.split:
            attention = 2 * space * t * t * dim + 2 * t * space * space * dim
            block = 27 * n * dim + 8 * n * dim * dim + attention + mlp
        else:
            block = 27 * n * dim + transformer_block(n, dim, config.mlp_ratio)
        total += taps * channels * n * dim + depth * block
        channels, side = dim, side // 2
    found = count_module(
        lambda: uniformer.UniFormer(config, num_classes=classes, rngs=nnx.Rngs(0)),
        shape(1, frames, 72, 72, 3),
    )
    assert found == 2 * (total + channels * classes)


def uniformer_norms(config, num_frames):
    """What the published figures count besides: 5 per element of a LayerNorm, 2 of a BatchNorm."""
    layer_norms = batch_norms = 0
    t, side = num_frames // 2, 224 // 4
    for stage, (depth, dim) in enumerate(zip(config.depth, config.dim, strict=True)):
        size = t * side * side * dim
        layer_norms += size  # of the patch embedding
        if stage < 2:
            batch_norms += 2 * depth * size
        else:
            layer_norms += 2 * depth * size
        side //= 2
    return 5 * layer_norms + 2 * (batch_norms + size)  # the final norm, after the last stage


@pytest.mark.parametrize(
    "variant,num_frames,published,digits",
    [("S", 16, 41.76, 2), ("B", 16, 96.74, 2), ("S", 8, 17.6, 1), ("B", 8, 40.2, 1)],
)
def test_uniformer_as_published(variant, num_frames, published, digits):
    # The published figures are those of a counter that adds the norms to the multiply-adds; ours
    # leave them out. With them every printed digit agrees.
    config = uniformer.VARIANTS[variant]
    found = count_module(
        lambda: uniformer.UniFormer(config, num_classes=400, rngs=nnx.Rngs(0)),
        shape(1, num_frames, 224, 224, 3),
    )
    assert round((found / 2 + uniformer_norms(config, num_frames)) / 1e9, digits) == published
    assert 0.997 < found / 2e9 / published < 1


@pytest.mark.parametrize(
    "stride,num_frames,published", [(10, 1024, 130.6), (16, 1024, 48.7), (16, 400, 18.0)]
)
def test_ast_as_published(stride, num_frames, published):
    config = dataclasses.replace(ast.VARIANTS["base"], stride=stride)
    found = count_module(
        lambda: ast.AST(config, num_frames=num_frames, num_classes=527, rngs=nnx.Rngs(0)),
        shape(1, num_frames, 128),
    )
    rows, columns = ast.patch_grid(num_frames, 128, config)
    # As for UniFormer: the published figures count 5 per element of the 25 LayerNorms.
    norms = 5 * (2 * config.depth + 1) * (rows * columns + 2) * config.dim
    assert round((found / 2 + norms) / 1e9, 1) == published
    assert 0.996 < found / 2e9 / published < 1


def in_parts(x, y):
    with scopes.part("first"):
        x = repeated(3)(x)
        x = jax.remat(lambda x: jax.jit(jnp.matmul)(jnp.sin(x), x))(x)
        with scopes.part("within"):
            x = jnp.sin(x) @ x
    with scopes.part(scopes.FUSION):
        x = lax.cond(x[0, 0] > 0, lambda x: jnp.sin(x), lambda x: jnp.sin(x) @ x, x)
    return jnp.sin(x) @ y


def test_parts_are_those_that_the_program_names():
    found = flops.by_part(in_parts, SQUARE, SQUARE)
    assert found == {"fusion": PRODUCT, "first": 5 * PRODUCT, "other": PRODUCT}
    assert list(found) == ["fusion", "first", "other"]
    trained = flops.by_part(gradient(in_parts), SQUARE, SQUARE)
    assert trained == {part: 3 * number for part, number in found.items()}


def test_parts_opened_within_loops_and_nested_programs():
    inner = scopes.part("decoder")(lambda x: x @ x)

    def function(x):
        x = lax.fori_loop(0, 4, lambda i, x: inner(x), x)
        return jax.jit(jax.remat(inner))(x) @ x

    assert flops.by_part(function, SQUARE) == {"decoder": 5 * PRODUCT, "other": PRODUCT}


def test_a_program_without_parts_is_one():
    def function(x):
        with jax.named_scope("a scope of another kind"):
            return jnp.einsum("ij,jk->ik", x, x)

    assert flops.by_part(function, SQUARE) == {"model": PRODUCT}
