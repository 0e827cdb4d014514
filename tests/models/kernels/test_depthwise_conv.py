"""Every form of the depthwise convolution against a sum written out: values and both gradients."""

from __future__ import annotations

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from jax.sharding import AbstractDevice, AbstractMesh, Mesh, NamedSharding, PartitionSpec

from avt_jax.models.kernels import choice, depthwise_conv, depthwise_triton
from avt_jax.models.kernels.depthwise_conv import depthwise_conv3d

# (input, kernel): both forms of the sum, unequal sizes, axes shorter than the kernel, one channel,
# one value, a row that is cut into pieces unevenly.
CASES = (
    ((2, 4, 5, 6, 8), (3, 3, 3)),
    ((1, 6, 7, 3, 4), (1, 3, 5)),
    ((3, 1, 2, 3, 5), (5, 5, 5)),
    ((1, 2, 1, 1, 3), (7, 3, 1)),
    ((2, 2, 3, 17, 1), (3, 5, 3)),
    ((1, 2, 2, 5, 40), (3, 1, 5)),
    ((1, 1, 1, 1, 1), (3, 3, 3)),
)
DTYPES = ("float64", "float32", "bfloat16")
# As they are, but for what runs without its GPU here: slowly.
FORWARD = depthwise_conv.FORWARD | {
    "triton": functools.partial(depthwise_triton.correlation, interpret=True)
}
KERNEL_GRADIENT = depthwise_conv.KERNEL_GRADIENT | {
    "triton": functools.partial(depthwise_triton.kernel_gradient, interpret=True)
}


def naive(x, kernel):
    """In float64, a tap after the other."""
    t, h, w = (size // 2 for size in kernel.shape[:3])
    padded = np.pad(x, ((0, 0), (t, t), (h, h), (w, w), (0, 0)))
    total = np.zeros_like(x)
    for i, j, k in itertools.product(*map(range, kernel.shape[:3])):
        window = padded[:, i : i + x.shape[1], j : j + x.shape[2], k : k + x.shape[3]]
        total += window * kernel[i, j, k]
    return total


def naive_kernel_gradient(x, grad, shape):
    t, h, w = (size // 2 for size in shape[:3])
    padded = np.pad(x, ((0, 0), (t, t), (h, h), (w, w), (0, 0)))
    found = np.zeros(shape)
    for i, j, k in itertools.product(*map(range, shape[:3])):
        window = padded[:, i : i + x.shape[1], j : j + x.shape[2], k : k + x.shape[3]]
        found[i, j, k] = (window * grad).sum((0, 1, 2, 3))
    return found


def draw(rng, shape, kernel, dtype=np.float64):
    """Input, kernel and gradient of the output; values that the type holds exactly."""
    shapes = (shape, (*kernel, shape[-1]), shape)
    return [rng.normal(size=size).astype(dtype).astype(np.float64) for size in shapes]


def close(got, want, dtype):
    """To the type's precision: a rounding at the end; sums of a few hundred in another order."""
    rtol = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 2.0**-7}[dtype]
    assert got.shape == want.shape
    np.testing.assert_allclose(
        np.asarray(got, np.float64), want, rtol=rtol, atol=rtol * max(np.abs(want).max(), 1e-30)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORWARD)
def test_every_form_of_the_convolution(rng, name, dtype):
    run = jax.jit(FORWARD[name])
    with jax.enable_x64(dtype == "float64"):
        for shape, size in CASES:
            x, kernel, _ = draw(rng, shape, size, jnp.dtype(dtype))
            got = run(jnp.asarray(x, dtype), jnp.asarray(kernel, dtype))
            assert got.dtype == dtype
            close(got, naive(x, kernel), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KERNEL_GRADIENT)
def test_every_form_of_the_kernels_gradient(rng, name, dtype):
    run = jax.jit(KERNEL_GRADIENT[name], static_argnums=2)
    with jax.enable_x64(dtype == "float64"):
        for shape, size in CASES:
            x, kernel, grad = draw(rng, shape, size, jnp.dtype(dtype))
            got = run(jnp.asarray(x, dtype), jnp.asarray(grad, dtype), kernel.shape)
            # Kept in float32 from 16 bits: the sum over a batch is not rounded.
            assert got.dtype == ("float64" if dtype == "float64" else "float32")
            wanted = naive_kernel_gradient(x, grad, kernel.shape)
            close(got, wanted, "float64" if dtype == "float64" else "float32")


@pytest.mark.parametrize("kernels", (choice.AUTO, *choice.PLATFORMS, choice.XLA))
def test_the_gradients_are_those_of_the_sum(rng, kernels):
    x, kernel, grad = draw(rng, (2, 3, 4, 5, 6), (3, 5, 3))
    conv = functools.partial(depthwise_conv3d, kernels=kernels)
    with jax.enable_x64(True):
        out, back = jax.vjp(jax.jit(conv), *map(jnp.asarray, (x, kernel)))
        grad_x, grad_kernel = back(jnp.asarray(grad))
        close(out, naive(x, kernel), "float64")
        close(grad_x, naive(grad, kernel[::-1, ::-1, ::-1]), "float64")
        close(grad_kernel, naive_kernel_gradient(x, grad, kernel.shape), "float64")


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


@pytest.mark.parametrize("size", (3, 5))
def test_bfloat16_sums_in_float32(rng, size):
    shape = (2, 4, 8, 8, 4)
    x, weights, grad = (jnp.abs(value) for value in draw(rng, shape, (size,) * 3, "float32"))
    # Positive values, so that a sum kept in bfloat16 would lose what is added last.
    weights = weights.astype(jnp.float32)
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


@pytest.mark.parametrize("kernels", ("cpu", "gpu", "tpu"))
def test_a_sharded_batch_is_summed_once(rng, kernels):
    conv = functools.partial(depthwise_conv3d, kernels=kernels)
    x, weights, grad = (value.astype(np.float32) for value in draw(rng, (8, 3, 4, 4, 5), (3, 5, 5)))
    mesh = Mesh(np.array(jax.devices()), ("data",))
    by_example = NamedSharding(mesh, PartitionSpec("data"))
    spread_x, spread_grad = (jax.device_put(value, by_example) for value in (x, grad))
    run = jax.jit(lambda x, kernel, grad: jax.vjp(conv, x, kernel)[1](grad))
    compiled = run.lower(spread_x, weights, spread_grad).compile()
    got = compiled(spread_x, weights, spread_grad)
    assert len(got[0].sharding.device_set) == len(jax.devices()) > 1
    for ours, theirs in zip(got, run(x, weights, grad), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-5)
    text = compiled.as_text()
    assert "all-gather(" not in text
    # One exchange, and it is not in a loop.
    assert text.count(" all-reduce(") == 1
    assert " all-reduce(" in text[text.index("\nENTRY ") :]


@pytest.fixture
def triton_everywhere(monkeypatch):
    """Chosen as on a GPU of today, interpreted."""
    monkeypatch.setattr(depthwise_conv, "FORWARD", FORWARD)
    monkeypatch.setattr(depthwise_conv, "KERNEL_GRADIENT", KERNEL_GRADIENT)
    monkeypatch.setattr(choice, "_since_ampere", lambda: True)
    monkeypatch.setattr(choice, "ONLY", {})
    jax.clear_caches()
    yield
    jax.clear_caches()


def test_triton_on_a_sharded_batch(rng, triton_everywhere):
    conv = functools.partial(depthwise_conv3d, kernels="gpu")
    x, weights, grad = (value.astype(np.float32) for value in draw(rng, (8, 3, 4, 4, 5), (3, 5, 5)))
    mesh = Mesh(np.array(jax.devices()), ("data",))
    by_example = NamedSharding(mesh, PartitionSpec("data"))
    spread_x, spread_grad = (jax.device_put(value, by_example) for value in (x, grad))

    def run(x, kernel, grad):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jax.vjp(conv, x, kernel)[1](grad)

    compiled = jax.jit(run).lower(spread_x, weights, spread_grad).compile()
    grad_x, grad_kernel = compiled(spread_x, weights, spread_grad)
    assert len(grad_x.sharding.device_set) == len(jax.devices()) > 1
    close(grad_x, naive(grad, weights[::-1, ::-1, ::-1]), "float32")
    close(grad_kernel, naive_kernel_gradient(x, grad, weights.shape), "float32")
    text = compiled.as_text()
    assert "all-gather(" not in text and text.count(" all-reduce(") == 1


def test_triton_leaves_a_batch_that_does_not_divide_to_others(rng, triton_everywhere):
    x, weights, grad = (value.astype(np.float32) for value in draw(rng, (3, 2, 4, 4, 5), (3, 3, 3)))
    mesh = Mesh(np.array(jax.devices()), ("data",))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        jaxpr = jax.make_jaxpr(lambda *args: jax.vjp(depthwise_conv3d, *args[:2])[1](args[2]))
        assert "pallas_call" not in str(jaxpr(x, weights, grad))
    alone = jax.make_jaxpr(lambda *args: jax.vjp(depthwise_conv3d, *args[:2])[1](args[2]))
    assert "pallas_call" in str(alone(x, weights, grad))


@pytest.mark.parametrize("size", (3, 5))
def test_triton_lowers_for_a_gpu_that_is_not_here(size):
    x = jax.ShapeDtypeStruct((8, 8, 14, 14, 320), jnp.bfloat16)
    kernel = jax.ShapeDtypeStruct((size, size, size, 320), jnp.float32)
    device = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
        for form, second in (
            (depthwise_triton.correlation, kernel),
            (functools.partial(depthwise_triton.kernel_gradient, shape=kernel.shape), x),
        ):
            traced = jax.jit(form).trace(x, second)
            assert "triton" in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_symbolic_batch(rng):
    x, kernel, _ = draw(rng, (3, 2, 4, 5, 6), (5, 3, 5))
    (b,) = jax.export.symbolic_shape("b")
    exported = jax.export.export(
        jax.jit(lambda x, kernel: jax.vjp(depthwise_conv3d, x, kernel)[1](x)),
        platforms=("cpu", "tpu"),
    )(
        jax.ShapeDtypeStruct((b, *x.shape[1:]), jnp.float32),
        jax.ShapeDtypeStruct(kernel.shape, jnp.float32),
    )
    grad_x, grad_kernel = exported.call(x.astype(np.float32), kernel.astype(np.float32))
    close(grad_x, naive(x, kernel[::-1, ::-1, ::-1]), "float32")
    close(grad_kernel, naive_kernel_gradient(x, x, kernel.shape), "float32")


def test_refuses_what_it_cannot_do():
    x = jnp.zeros((1, 2, 2, 2, 3))
    with pytest.raises(ValueError, match="odd, got \\(3, 2, 3\\)"):
        depthwise_conv3d(x, jnp.zeros((3, 2, 3, 3)))
    with pytest.raises(ValueError, match="4 channels and the input 3"):
        depthwise_conv3d(x, jnp.zeros((3, 3, 3, 4)))
