"""The forms of a model's arrays: an entry per layer, per tower, and small ones together."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from avt_jax import tree
from avt_jax.tree import stacks


class Layer(nnx.Module):
    def __init__(self, width, drop_path, rngs, kind="a"):
        self.linear = nnx.Linear(width, 2, rngs=rngs)
        self.count = nnx.BatchStat(jnp.zeros(2))
        self.drop_path = drop_path
        self.kind = kind


class Model(nnx.Module):
    """Four equal layers, two (too few), three of which one is wider, three of different kinds."""

    def __init__(self, rngs):
        self.equal = nnx.List([Layer(3, rate / 10, rngs) for rate in range(4)])
        self.few = nnx.List([Layer(3, 0.0, rngs) for _ in range(2)])
        self.wider = nnx.List([Layer(width, 0.0, rngs) for width in (3, 3, 4)])
        self.kinds = nnx.List([Layer(3, 0.0, rngs, kind) for kind in "aab"])
        self.large = nnx.Param(jnp.arange(2.0**18))


@pytest.fixture
def skeleton():
    return tree.Skeleton(lambda: Model(nnx.Rngs(0)))


@pytest.fixture
def arrays():
    return tree.split(Model(nnx.Rngs(0)))


def test_only_equal_layers_are_stacked(skeleton, arrays):
    stacked = skeleton.packing.stack(arrays[0])
    found = {path: value.shape for path, value in stacked.items() if stacks.EACH in path}
    assert found == {
        f"equal/{stacks.EACH}/linear/bias": (4, 2),
        f"equal/{stacks.EACH}/linear/kernel": (4, 3, 2),
    }
    layer = stacked[f"equal/{stacks.EACH}/linear/kernel"][2]
    chex.assert_trees_all_equal(layer, arrays[0]["equal/2/linear/kernel"])


def test_all_forms_hold_the_same(skeleton, arrays):
    packing = skeleton.packing
    for flat in arrays:
        chex.assert_trees_all_equal(packing.unstack(packing.stack(flat)), flat)
        packed = packing.pack(flat)
        chex.assert_trees_all_equal(packing.unpack(packed), flat)
        chex.assert_trees_all_equal(packing.open(packed), packing.stack(flat))
        assert packing.is_packed(packed) and not packing.is_packed(flat)
    params = packing.pack(arrays[0])
    assert sorted(params) == ["large", "small matrices", "small vectors"]
    assert sorted(packing.pack(arrays[1])) == ["small statistics"]


def test_a_model_with_stacked_layers_keeps_their_rates(skeleton, arrays):
    params, stats = map(skeleton.packing.pack, arrays)
    model = skeleton.merge(params, stats)
    assert isinstance(model.equal, stacks.LayerStack) and len(model.equal) == 4
    assert model.equal.drop_path_rates == (0.0, 0.1, 0.2, 0.3)
    assert isinstance(model.few, nnx.List)
    # The skeleton itself is as it was.
    chex.assert_trees_all_equal(tree.split(skeleton.merge(*arrays)), arrays)


def test_the_forms_may_be_made_while_something_is_traced(skeleton, arrays):
    seen = jax.eval_shape(lambda params, stats: tree.split(skeleton.merge(params, stats)), *arrays)
    assert sorted(seen[0]) == sorted(arrays[0])
