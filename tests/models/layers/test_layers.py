"""Norms, attention, and drop path, against their definitions."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from avt_jax.models.layers import (
    Attention,
    TransformerBlock,
    drop_path,
    exact_gelu,
)
from avt_jax.models.layers.norms import BatchNorm, LayerNorm
from avt_jax.models.layers.towers import drop_path_rates


def test_layer_norm_by_definition(rng):
    x = rng.normal(3.0, 2.0, size=(4, 5, 6))
    with jax.enable_x64(True):
        # An epsilon large enough to show.
        norm = LayerNorm(6, eps=0.5)
        norm.scale.set_value(jnp.arange(6.0))
        norm.bias.set_value(jnp.full(6, 0.25))
        normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.5)
        np.testing.assert_allclose(norm(x), normal * np.arange(6.0) + 0.25, atol=1e-12)


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16))
def test_norms_compute_in_float32(dtype, rng):
    # In bfloat16 the mean of these would be off by more than their spread.
    x = jnp.asarray(rng.normal(200.0, 1.0, size=(64, 8)), dtype)
    wide = np.asarray(x, np.float64)
    for got, axis in ((LayerNorm(8)(x), -1), (BatchNorm(8)(x, train=True), 0)):
        assert got.dtype == dtype
        want = (wide - wide.mean(axis, keepdims=True)) / wide.std(axis, keepdims=True)
        np.testing.assert_allclose(got.astype(np.float32), want, atol=2e-2)


def test_batch_norm_by_definition(rng):
    first, second = rng.normal(size=(2, 3, 2, 2, 2, 4)).astype(np.float32) * 3 + 1
    norm = BatchNorm(4)
    mean, var = np.zeros(4), np.ones(4)
    for x in (first, second):
        got = norm(jnp.asarray(x), train=True)
        rows = x.reshape(-1, 4)
        want = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
        np.testing.assert_allclose(got.reshape(-1, 4), want, atol=1e-5)
        # Momentum in PyTorch's sense, and the unbiased variance of the 24 values.
        mean = 0.9 * mean + 0.1 * rows.mean(0)
        var = 0.9 * var + 0.1 * rows.var(0, ddof=1)
    np.testing.assert_allclose(norm.mean[...], mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], var, rtol=1e-5)
    want = (first - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(norm(jnp.asarray(first), train=False), want, atol=1e-5)
    # Evaluation leaves the statistics alone.
    np.testing.assert_allclose(norm.mean[...], mean, rtol=1e-5)


def test_frozen_batch_norm_reads_and_keeps_its_statistics(rng):
    norm = BatchNorm(4, frozen=True)
    norm.mean.set_value(jnp.full(4, 2.0))
    norm.var.set_value(jnp.full(4, 4.0))
    x = rng.normal(size=(5, 4)).astype(np.float32)
    got = norm(jnp.asarray(x), train=True)
    np.testing.assert_allclose(got, (x - 2) / np.sqrt(4 + 1e-5), atol=1e-6)
    np.testing.assert_array_equal(norm.mean[...], np.full(4, 2.0))
    np.testing.assert_array_equal(norm.var[...], np.full(4, 4.0))


def test_batch_norm_is_over_the_batch_of_all_devices(rng):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    # Every device has another mean: statistics per device would give zeros.
    x = (np.arange(8.0)[:, None, None] + rng.normal(size=(8, 3, 2)) * 0.1).astype(np.float32)
    graph, state = nnx.split(BatchNorm(2))

    @jax.jit
    def run(state, x):
        norm = nnx.merge(graph, state)
        out = norm(x, train=True)
        return out, norm.mean[...], norm.var[...]

    spread = run(state, jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))))
    chex.assert_trees_all_close(spread, run(state, x), atol=1e-5)
    assert np.ptp(spread[0]) > 2


def test_exact_gelu_and_its_gradient_are_those_of_jax():
    with jax.enable_x64(True):
        x = jnp.linspace(-6.0, 6.0, 101)
        got = exact_gelu(x), jax.grad(lambda x: jnp.sin(exact_gelu(x)).sum())(x)
        want = (
            jax.nn.gelu(x, approximate=False),
            jax.grad(lambda x: jnp.sin(jax.nn.gelu(x, approximate=False)).sum())(x),
        )
        chex.assert_trees_all_close(got, want, atol=1e-14)
    half = exact_gelu(jnp.asarray([-3.0], jnp.bfloat16))
    # In bfloat16 throughout, 1 + erf(-2.12) would be 0.0039 or 0.
    np.testing.assert_allclose(half.astype(np.float32), -0.00405, rtol=1e-2)


def test_attention_bias_is_an_option():
    shared = dict(dtype=jnp.float32, rngs=nnx.Rngs(0))
    assert Attention(8, 2, **shared).qkv.bias is not None
    assert Attention(8, 2, qkv_bias=False, **shared).qkv.bias is None


def test_drop_path_drops_whole_examples_at_the_rate():
    rate, count = 0.3, 4000
    x = jnp.ones((count, 2, 3))
    out = np.asarray(drop_path(x, rate, train=True, rngs=nnx.Rngs(dropout=0)))
    rows = out.reshape(count, -1)
    assert (rows == rows[:, :1]).all()
    np.testing.assert_allclose(np.unique(rows), [0, 1 / 0.7], rtol=1e-6)
    # Five standard deviations of a proportion.
    assert abs((rows[:, 0] == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / count)


def test_drop_path_does_nothing_in_evaluation_or_at_rate_0():
    x = jnp.ones((4, 2))
    assert drop_path(x, 0.9, train=False, rngs=None) is x
    assert drop_path(x, 0.0, train=True, rngs=None) is x


def test_drop_path_differs_between_branches_and_repeats_with_its_key():
    block = TransformerBlock(8, 2, drop_path=0.5, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (16, 3, 8))

    def run(seed):
        return block(x, train=True, rngs=nnx.Rngs(dropout=seed))

    np.testing.assert_array_equal(run(0), run(0))
    assert (np.asarray(run(0)) != np.asarray(run(1))).any()
    # Two branches, each drawn for itself, leave four kinds of examples; one is x itself.
    unchanged = (np.asarray(run(0)) == np.asarray(x)).all((1, 2))
    assert 0 < unchanged.sum() < 16


def test_drop_path_rates_grow_linearly():
    np.testing.assert_allclose(drop_path_rates(0.3, 4), [0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0]
    assert drop_path_rates(0.3, 0) == []
