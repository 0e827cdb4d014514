"""Operation counts on programs whose cost is known."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from avt_jax.models.kernels.depthwise_conv import depthwise_conv3d
from avt_jax.profiling import xla

SQUARE = jax.ShapeDtypeStruct((64, 64), jnp.float32)
PRODUCT = 2 * 64**3
SLACK = 1.02  # loop counters and the element-wise operations below


def repeated(times, **how):
    return lambda x: lax.scan(lambda c, _: (c @ c, None), x, length=times, **how)[0]


@pytest.mark.parametrize(
    "function,products",
    [
        (lambda x: x @ x, 1),
        (lambda x: lax.fori_loop(0, 10, lambda i, c: c @ c, x), 10),
        (lambda x: lax.map(lambda row: row @ x, x), 1),
        (repeated(7, unroll=3), 7),
        (repeated(6, unroll=3), 6),
        (repeated(4, unroll=8), 4),
        # A loop in a loop, behind a nested jit that is called twice.
        (lambda x: sum(jax.jit(lambda y: repeated(3)(repeated(5)(y)))(x + i) for i in (1, 2)), 16),
        (lambda x: lax.scan(lambda c, _: (repeated(3)(c) @ c, None), x, length=5)[0], 20),
        (lambda x: (lax.fori_loop(0, 10, lambda i, c: c @ c, x), x @ x)[1], 1),  # dead loop
        (lambda x: lax.cond(x[0, 0] > 0, repeated(3), lambda y: y @ y, x), 3),
        (jax.remat(repeated(3)), 3),
    ],
)
def test_matrix_products(function, products):
    assert products * PRODUCT <= xla.flops(function, SQUARE) <= products * PRODUCT * SLACK


@pytest.mark.parametrize("size", [3, 5])
def test_depthwise_convolution_forward_and_backward(size):
    x = jax.ShapeDtypeStruct((1, 6, 8, 8, 16), jnp.float32)
    kernel = jax.ShapeDtypeStruct((size, size, size, 16), jnp.float32)
    once = 2 * size**3 * 6 * 8 * 8 * 16

    def gradients(x, kernel):
        out, back = jax.vjp(depthwise_conv3d, x, kernel)
        return out, back(out)

    # The first tap needs no addition; the bias and the shifts are little.
    assert 0.95 * once <= xla.flops(depthwise_conv3d, x, kernel) <= once * 1.1
    assert 2.85 * once <= xla.flops(gradients, x, kernel) <= 3 * once * 1.2


def test_the_count_is_an_accelerators_on_any_machine():
    def one_by_one(x):
        return lax.fori_loop(0, 10, lambda i, c: c @ c, x)

    chosen = xla.flops(
        lambda x: lax.platform_dependent(x, cpu=one_by_one, default=lambda x: x @ x), SQUARE
    )
    assert PRODUCT <= chosen <= PRODUCT * SLACK
    looped = xla.flops(
        lambda x: lax.platform_dependent(x, cpu=lambda x: x @ x, default=one_by_one), SQUARE
    )
    assert 10 * PRODUCT <= looped <= 10 * PRODUCT * SLACK


def test_nothing_to_count():
    assert xla.flops(lambda x: x.T, SQUARE) == 0


def test_temporary_memory_holds_what_a_gradient_needs():
    def forward(x):
        return jnp.sin(jnp.sin(x) @ x).sum()

    needed = xla.temporary_bytes(jax.grad(forward), SQUARE)
    assert needed >= 64 * 64 * 4
    assert xla.temporary_bytes(lambda x: x + 1, SQUARE) < needed
