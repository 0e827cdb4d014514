"""The forms that only a GPU has, on a GPU: `JAX_PLATFORMS=cuda,cpu pytest tests/models/kernels`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avt_jax.models.kernels import attention, depthwise_conv, depthwise_forms
from avt_jax.models.kernels.attention_forms import PLAIN

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "gpu", reason="no GPU: JAX_PLATFORMS=cuda,cpu where there is one"
)
# Shapes of the models, one with edges everywhere, one that is smaller than a tile.
CASES = (
    ((2, 8, 56, 56, 64), (5, 5, 5)),
    ((2, 8, 28, 28, 128), (3, 3, 3)),
    ((2, 4, 14, 14, 320), (3, 3, 3)),
    ((3, 5, 9, 13, 40), (3, 5, 3)),
    ((1, 1, 1, 1, 3), (3, 3, 3)),
)


def draw(*shapes, dtype):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]


def near(got, want, rtol):
    """Within a share of the largest number."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=rtol * np.abs(want).max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_triton_convolves_as_the_shifted_sum(case, dtype):
    shape, size = case
    x, grad = draw(shape, shape, dtype=dtype)
    (kernel,) = draw((*size, shape[-1]), dtype="float32")
    wide_x, wide_grad = x.astype("float32"), grad.astype("float32")
    got = jax.jit(depthwise_conv.FORWARD["triton"])(x, kernel)
    assert got.dtype == dtype
    near(got, depthwise_forms.shifted(wide_x, kernel), 1e-5 if dtype == "float32" else 2.0**-8)
    run = jax.jit(depthwise_conv.KERNEL_GRADIENT["triton"], static_argnums=2)
    found = run(x, grad, kernel.shape)
    assert found.dtype == jnp.float32
    near(found, depthwise_forms.kernel_gradient_taps(wide_x, wide_grad, kernel.shape), 1e-4)


@pytest.mark.parametrize("size", [(402, 402), (1568, 1568), (34, 66)], ids=str)
def test_cudnn_attends_as_the_plain_form(size):
    n, m = size
    query, key, value, grad = draw(
        (2, n, 4, 64), (2, m, 4, 64), (2, m, 4, 64), (2, n, 4, 64), dtype="bfloat16"
    )
    query /= 8

    def both(form, *arrays):
        out, statistics = form.forward(*arrays)
        return out, form.backward(*arrays, out, statistics, grad)

    got = jax.jit(lambda *arrays: both(attention.FORMS["cudnn"], *arrays))(query, key, value)
    wide = [x.astype("float32") for x in (query, key, value)]
    with jax.default_matmul_precision("highest"):
        out, statistics = PLAIN.forward(*wide)
        want = out, PLAIN.backward(*wide, out, statistics, grad.astype("float32"))
    jax.tree.map(lambda ours, theirs: near(ours, theirs, 2.0**-6), got, want)
