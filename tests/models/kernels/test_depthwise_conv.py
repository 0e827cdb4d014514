"""The depthwise convolution against XLA's grouped convolution: values and both gradients."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from avt_jax.models.kernels.depthwise_conv import depthwise_conv3d

# (input, kernel): both forms of the sum, unequal sizes, axes shorter than the kernel, one value.
CASES = (
    ((2, 4, 5, 6, 8), (3, 3, 3)),
    ((2, 4, 5, 6, 8), (5, 5, 5)),
    ((1, 6, 7, 3, 4), (1, 3, 5)),
    ((3, 1, 2, 3, 5), (5, 5, 5)),
    ((1, 2, 1, 1, 3), (7, 3, 1)),
    ((1, 1, 1, 1, 1), (3, 3, 3)),
)


def naive(x_bthwc, kernel_xyzc, bias_c):
    out = lax.conv_general_dilated(
        x_bthwc,
        kernel_xyzc[:, :, :, None],
        (1, 1, 1),
        [(size // 2, size // 2) for size in kernel_xyzc.shape[:3]],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=x_bthwc.shape[-1],
    )
    return out + bias_c


def draw(rng, shape, kernel):
    """Input, kernel, bias and the gradient of the output."""
    shapes = (shape, (*kernel, shape[-1]), shape[-1:], shape)
    return [rng.normal(size=size).astype(np.float32) for size in shapes]


def gradients(conv, x, kernel, bias, grad):
    return jax.vjp(conv, x, kernel, bias)[1](grad)


@pytest.mark.parametrize(("shape", "kernel"), CASES)
def test_equals_the_naive_form(rng, shape, kernel):
    x, weights, bias, grad = draw(rng, shape, kernel)
    np.testing.assert_allclose(
        jax.jit(depthwise_conv3d)(x, weights, bias), naive(x, weights, bias), atol=2e-5
    )
    ours = jax.jit(lambda *args: gradients(depthwise_conv3d, *args))(x, weights, bias, grad)
    theirs = gradients(naive, x, weights, bias, grad)
    for name, got, want in zip(("input", "kernel", "bias"), ours, theirs, strict=True):
        chex.assert_equal_shape([got, want])
        # Sums of up to 240 products in another order.
        np.testing.assert_allclose(got, want, atol=5e-5, err_msg=name)


class ByHand(chex.TestCase):
    """A case small enough to work out on paper, with and without jit."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(0, 1, 2)
    def test_shift(self, tap):
        # A kernel with a single 1 shifts the frames; zeros come in from outside.
        x = np.arange(1.0, 4.0, dtype=np.float32).reshape(1, 3, 1, 1, 1)
        kernel = np.zeros((3, 1, 1, 1), np.float32)
        kernel[tap] = 1
        got = self.variant(depthwise_conv3d)(x, kernel)
        want = {0: [0, 1, 2], 1: [1, 2, 3], 2: [2, 3, 0]}[tap]
        np.testing.assert_array_equal(np.ravel(got), want)


def test_float64(rng):
    with jax.enable_x64(True):
        args = [value.astype(np.float64) for value in draw(rng, (2, 3, 4, 5, 6), (3, 5, 5))]
        got = gradients(depthwise_conv3d, *args)
        for ours, theirs in zip(got, gradients(naive, *args), strict=True):
            assert ours.dtype == np.float64
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("size", (3, 5))
def test_bfloat16_sums_in_float32(rng, size):
    x, weights, _, grad = draw(rng, (2, 4, 8, 8, 4), (size,) * 3)
    # Positive values, so that a sum kept in bfloat16 would lose what is added last.
    x, weights, grad = (jnp.abs(value) for value in (x, weights, grad))
    half_x, half_grad = x.astype(jnp.bfloat16), grad.astype(jnp.bfloat16)
    got, back = jax.vjp(depthwise_conv3d, half_x, weights)
    grad_x, grad_kernel = back(half_grad)
    assert (got.dtype, grad_x.dtype, grad_kernel.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    wide, back = jax.vjp(depthwise_conv3d, half_x.astype(jnp.float32), weights)
    want_x, want_kernel = back(half_grad.astype(jnp.float32))
    # One rounding to bfloat16 at the end: half of 2^-7.
    for ours, theirs in ((got, wide), (grad_x, want_x)):
        np.testing.assert_allclose(ours.astype(np.float32), theirs, rtol=2.0**-8)
    np.testing.assert_allclose(grad_kernel, want_kernel, rtol=1e-5)


def test_same_on_a_sharded_batch(rng):
    x, weights, bias, grad = draw(rng, (8, 3, 4, 4, 5), (3, 5, 5))
    mesh = Mesh(np.array(jax.devices()), ("data",))
    by_example = NamedSharding(mesh, PartitionSpec("data"))
    spread_x, spread_grad = (jax.device_put(value, by_example) for value in (x, grad))
    run = jax.jit(lambda *args: gradients(depthwise_conv3d, *args))
    got = run(spread_x, weights, bias, spread_grad)
    assert len(got[0].sharding.device_set) == len(jax.devices()) > 1
    for ours, theirs in zip(got, run(x, weights, bias, grad), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-5)


def test_refuses_what_it_cannot_do():
    x = jnp.zeros((1, 2, 2, 2, 3))
    with pytest.raises(ValueError, match="odd, got \\(3, 2, 3\\)"):
        depthwise_conv3d(x, jnp.zeros((3, 2, 3, 3)))
    with pytest.raises(ValueError, match="4 channels and the input 3"):
        depthwise_conv3d(x, jnp.zeros((3, 3, 3, 4)))
