"""Softmax attention against its definition and JAX's own, in both of its forms."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avt_jax.models.kernels import attention
from avt_jax.models.kernels.attention import dot_product_attention


@pytest.mark.parametrize("length", (7, 1))
def test_attention_by_definition(rng, length):
    query, value = rng.normal(size=(2, 2, 7, 3, 4))
    key, value = rng.normal(size=(2, length, 3, 4)), value[:, :length]
    with jax.enable_x64(True):
        got = dot_product_attention(*map(jnp.asarray, (query, key, value)))
    for b in range(2):
        for head in range(3):
            logits = query[b, :, head] @ key[b, :, head].T / 2.0
            weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
            np.testing.assert_allclose(got[b, :, head], weights @ value[b, :, head], atol=1e-12)


def test_attention_survives_large_logits(rng):
    query, value = rng.normal(size=(2, 1, 6, 1, 4)).astype(np.float32)
    query = query * 1e3

    def total(query):
        return dot_product_attention(query, query, value).sum()

    # Each token is by far most like itself or a longer one: no overflow, and a finite gradient.
    chex.assert_tree_all_finite(jax.value_and_grad(total)(query))


def test_gradient_of_attention_equals_that_of_jax(rng):
    query, key, value = rng.normal(size=(3, 2, 5, 2, 4)).astype(np.float32)

    def gradient(attend):
        return jax.grad(lambda *args: jnp.sin(attend(*args)).sum(), (0, 1, 2))(query, key, value)

    chex.assert_trees_all_close(
        gradient(dot_product_attention), gradient(jax.nn.dot_product_attention), atol=1e-5
    )


@pytest.mark.parametrize("limit_bytes", (0, 2**30))
def test_heads_one_by_one_and_all_at_once_agree(rng, monkeypatch, limit_bytes):
    monkeypatch.setattr(attention, "_ALL_HEADS_BYTES", limit_bytes)
    arrays = rng.normal(size=(3, 2, 5, 3, 4))

    def total(query, key, value):
        return jnp.sin(dot_product_attention(query, key, value)).sum()

    def by_definition(query, key, value):
        weights = jax.nn.softmax(jnp.einsum("bnhd,bmhd->bhnm", query, key) / 2.0)
        return jnp.sin(jnp.einsum("bhnm,bmhd->bnhd", weights, value)).sum()

    with jax.enable_x64(True):
        inputs = tuple(map(jnp.asarray, arrays))
        loops = str(jax.make_jaxpr(total)(*inputs)).count("scan[")
        got = jax.jit(jax.value_and_grad(total, (0, 1, 2)))(*inputs)
        want = jax.jit(jax.value_and_grad(by_definition, (0, 1, 2)))(*inputs)
        chex.assert_trees_all_close(got, want, atol=1e-12)
    assert loops == (1 if limit_bytes == 0 else 0)


def test_attention_in_bfloat16_is_near_float32(rng):
    x = jnp.asarray(rng.normal(size=(2, 50, 2, 8)), jnp.bfloat16)
    got = dot_product_attention(x, x, x)
    assert got.dtype == jnp.bfloat16
    wide = x.astype(jnp.float32)
    want = dot_product_attention(wide, wide, wide)
    np.testing.assert_allclose(got.astype(np.float32), want, atol=3e-2)
