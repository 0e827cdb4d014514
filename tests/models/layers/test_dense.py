"""Dense layers and biases: values by NumPy, gradients summed in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from avt_jax.models import layers
from avt_jax.models.layers import add_bias, dense, linear


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (2, 3, 5, 7, 4)])
def test_a_dense_layer_by_numpy(rng, shape):
    with jax.enable_x64():
        layer = linear(4, 6, dtype=jnp.float64, rngs=nnx.Rngs(0))
        x, grad = rng.normal(size=shape), rng.normal(size=(*shape[:-1], 6))
        kernel, bias = rng.normal(size=(4, 6)), rng.normal(size=6)
        layer.kernel[...], layer.bias[...] = jnp.asarray(kernel), jnp.asarray(bias)
        graph, state = nnx.split(layer)
        out, back = jax.vjp(lambda state, x: nnx.merge(graph, state)(x), state, jnp.asarray(x))
        grads, grad_x = back(jnp.asarray(grad))
    rows, grad_rows = x.reshape(-1, 4), grad.reshape(-1, 6)
    np.testing.assert_allclose(out, x @ kernel + bias, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(grad_x, grad @ kernel.T, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(grads["kernel"][...], rows.T @ grad_rows, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(grads["bias"][...], grad_rows.sum(0), rtol=1e-6, atol=1e-6)


def test_gradients_of_parameters_are_summed_in_float32():
    """4096 rows of 1 + 2^-7: in bfloat16 such a sum would stop at 256, and be rounded."""
    x = jnp.ones((8, 512, 1), jnp.bfloat16)
    grad = jnp.full((8, 512, 1), 1 + 2**-7, jnp.bfloat16)

    def both(x, kernel, bias):
        return add_bias(dense(x, kernel), bias)

    _, back = jax.vjp(both, x, jnp.ones((1, 1)), jnp.zeros(1))
    grad_x, grad_kernel, grad_bias = back(grad)
    assert grad_x.dtype == jnp.bfloat16
    assert grad_kernel.dtype == grad_bias.dtype == jnp.float32
    assert grad_kernel[0, 0] == grad_bias[0] == 4096 + 32


def test_the_forms_of_the_kernels_gradient_agree(rng):
    x, grad = (jnp.asarray(rng.normal(size=(2, 5, 3, size)), "float32") for size in (4, 6))
    rows, axes = (form(x, grad) for form in layers._KERNEL_GRADIENTS.values())
    np.testing.assert_allclose(rows, axes, rtol=1e-6, atol=1e-6)
