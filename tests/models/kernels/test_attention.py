"""Every form of softmax attention against its definition: values and all gradients."""

from __future__ import annotations

import functools
import importlib.util
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from avt_jax.errors import UserError
from avt_jax.models.kernels import attention, attention_flash, choice, depthwise_conv
from avt_jax.models.kernels.attention import FORMS, dot_product_attention

# Forms that a CPU runs; the Pallas form has tests of its own, cuDNN needs a GPU.
ANYWHERE = [
    name
    for name in FORMS
    if name not in choice.ONLY and (name != "tokamax" or importlib.util.find_spec(name))
]
# (b, n, m, h, d): unequal lengths, one key, one of everything.
CASES = ((2, 7, 5, 3, 4), (1, 3, 1, 2, 8), (1, 1, 1, 1, 1), (2, 130, 33, 1, 4))


def definition(query, key, value, grad):
    """Output and the three gradients in float64, the query not yet scaled."""
    logits = np.einsum("bnhd,bmhd->bhnm", query, key) * query.shape[-1] ** -0.5
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out = np.einsum("bhnm,bmhd->bnhd", weights, value)
    change = np.einsum("bnhd,bmhd->bhnm", grad, value)
    change = weights * (change - (weights * change).sum(-1, keepdims=True))
    change *= query.shape[-1] ** -0.5
    return (
        out,
        np.einsum("bhnm,bmhd->bnhd", change, key),
        np.einsum("bhnm,bnhd->bmhd", change, query),
        np.einsum("bhnm,bnhd->bmhd", weights, grad),
    )


def draw(rng, b, n, m, h, d, dtype="float64"):
    """Query, key, value and the output's gradient; values that the type holds exactly."""
    shapes = ((b, n, h, d), (b, m, h, d), (b, m, h, d), (b, n, h, d))
    return [rng.normal(size=s).astype(jnp.dtype(dtype)).astype(np.float64) for s in shapes]


def of_form(name):
    """The interface with one form on every platform."""
    chosen = tuple((platform, name) for platform in choice.PLATFORMS)
    return functools.partial(attention.attend, chosen=chosen)


def check(attend, arrays, dtype):
    def both(query, key, value, grad):
        out, back = jax.vjp(attend, query, key, value)
        return out, *back(grad)

    atol = {"float64": 1e-12, "float32": 2e-6, "bfloat16": 3e-2}[dtype]
    got = jax.jit(both)(*(jnp.asarray(x, dtype) for x in arrays))
    for ours, theirs in zip(got, definition(*arrays), strict=True):
        assert ours.dtype == dtype
        bound = atol * max(1, np.abs(theirs).max())
        np.testing.assert_allclose(np.asarray(ours, np.float64), theirs, atol=bound)


@pytest.mark.parametrize("dtype", ("float64", "float32", "bfloat16"))
@pytest.mark.parametrize("name", ANYWHERE)
def test_every_form_by_definition(rng, name, dtype):
    attend = of_form(name)
    with jax.enable_x64(dtype == "float64"):
        for case in CASES:
            check(attend, draw(rng, *case, dtype), dtype)


@pytest.mark.parametrize("name", ANYWHERE)
def test_every_form_survives_large_logits(rng, name):
    query, value = rng.normal(size=(2, 1, 6, 1, 4)).astype(np.float32)
    query = query * 1e3

    def total(query):
        return of_form(name)(query, query, value).sum()

    # Each token is by far most like itself or a longer one: no overflow, and a finite gradient.
    chex.assert_tree_all_finite(jax.value_and_grad(total)(query))


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
def test_the_pallas_form_by_definition(rng, monkeypatch, dtype):
    # Lengths that are padded to a block, and keys that are masked.
    monkeypatch.setitem(FORMS, "splash", attention_flash.splash(interpret=True))
    jax.clear_caches()  # the forms of an earlier test
    arrays = draw(rng, 1, 20, 30, 1, 64, dtype)
    check(of_form("splash"), arrays, dtype)


def test_the_pallas_form_runs_its_forward_pass_once():
    form = attention_flash.SPLASH
    shape = jax.ShapeDtypeStruct((2, 200, 3, 64), jnp.bfloat16)
    out, statistics = jax.eval_shape(form.forward, shape, shape, shape)
    assert (statistics.shape, statistics.dtype) == ((2, 3, 200), jnp.float32)
    arguments = (shape, shape, shape, out, statistics, shape)
    text = jax.jit(form.backward).trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()
    # Made again for the gradient, then replaced by what was kept: nothing reads it any more.
    calls = [line for line in text.splitlines() if "@tpu_custom_call" in line]
    assert len(calls) == 2 and not any("fwd" in line for line in calls), calls


def test_the_pallas_form_goes_over_the_devices_of_a_mesh():
    form = attention_flash.SPLASH
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def traced(batch):
        shape = jax.ShapeDtypeStruct((batch, 200, 3, 64), jnp.bfloat16)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return str(jax.make_jaxpr(form.forward)(shape, shape, shape))

    whole, odd = traced(16), traced(12)
    assert "shard_map" in whole and "pallas_call" in whole and str(P(("data",))) in whole
    # A batch that does not divide: in the form that XLA spreads by itself.
    assert "pallas_call" not in odd and "shard_map" not in odd


@pytest.mark.parametrize("kernels", ("auto", "cpu", "gpu", "xla"))
@pytest.mark.parametrize("n,m", ((5, 9), (300, 260)))
def test_symbolic_batch(rng, kernels, n, m):
    (b,) = jax.export.symbolic_shape("b")
    query = jax.ShapeDtypeStruct((b, n, 2, 64), jnp.bfloat16)
    key = jax.ShapeDtypeStruct((b, m, 2, 64), jnp.bfloat16)
    attend = functools.partial(dot_product_attention, kernels=kernels)

    def gradients(query, key, value):
        out, back = jax.vjp(attend, query, key, value)
        return out, *back(out)

    export = jax.export.export(jax.jit(gradients), platforms=("cpu", "tpu"))
    exported = export(query, key, key)
    arrays = draw(rng, 3, n, m, 2, 64, "bfloat16")
    got = exported.call(*(jnp.asarray(x, jnp.bfloat16) for x in arrays[:3]))
    want = definition(*arrays[:3], np.asarray(got[0], np.float64))
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(np.asarray(ours, np.float64), theirs, atol=5e-2)


def test_no_weights_are_kept_for_the_gradient():
    x = jax.ShapeDtypeStruct((2, 300, 3, 64), jnp.bfloat16)

    def kept(query, key, value):
        return jax.vjp(dot_product_attention, query, key, value)[1]

    for leaf in jax.tree.leaves(jax.eval_shape(kept, x, x, x)):
        assert leaf.size <= 2 * 300 * 3 * 64


def test_tokamax_is_asked_for_only_where_it_is_named(rng, monkeypatch):
    query = jnp.ones((1, 3, 2, 4))
    if importlib.util.find_spec("tokamax") is None:
        with pytest.raises(UserError, match="needs the package tokamax; pip install tokamax"):
            dot_product_attention(query, query, query, kernels="tokamax")
    fake = types.SimpleNamespace(
        dot_product_attention=lambda q, k, v, *, scale: jax.nn.dot_product_attention(
            q, k, v, scale=scale
        )
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(attention_flash.importlib, "import_module", lambda name: fake)
    attend = functools.partial(dot_product_attention, kernels="tokamax")
    check(attend, draw(rng, 2, 6, 5, 2, 3, "float32"), "float32")


def test_every_form_is_one_that_can_be_chosen():
    known = set(attention.FORMS) | set(depthwise_conv.FORWARD) | set(depthwise_conv.KERNEL_GRADIENT)
    assert set(choice.ONLY) < known
    assert set(choice.ONLY.values()) <= set(choice.PLATFORMS)
    with pytest.raises(UserError, match=r"'cpuu' is not known \(did you mean 'cpu'\?\)"):
        dot_product_attention(*[jnp.ones((1, 2, 1, 2))] * 3, kernels="cpuu")
