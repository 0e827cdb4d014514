"""Models taken apart into flat dictionaries and put together again."""

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from avt_jax import tree


class Toy(nnx.Module):
    """Two layers and a statistic."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)])
        self.seen = nnx.BatchStat(jnp.zeros(3))

    def __call__(self, x_bd):
        return self.layers[1](self.layers[0](x_bd))


def make(seed=0):
    return Toy(nnx.Rngs(seed))


def test_round_trip():
    skeleton = tree.Skeleton(make)
    params, stats = tree.split(make(3))
    assert set(params) == {f"layers/{i}/{p}" for i in (0, 1) for p in ("kernel", "bias")}
    assert set(stats) == {"seen"}
    chex.assert_trees_all_equal_shapes_and_dtypes(skeleton.params, params)
    x = jnp.ones((2, 3))
    chex.assert_trees_all_equal(skeleton.merge(params, stats)(x), make(3)(x))
    assert tree.parameter_count(skeleton.params) == 3 * 4 + 4 + 4 * 2 + 2


def test_gradient_reaches_flat_parameters():
    skeleton = tree.Skeleton(make)
    params, stats = tree.split(make())
    grads = jax.grad(lambda p: skeleton.merge(p, stats)(jnp.ones((1, 3))).sum())(params)
    chex.assert_trees_all_equal_shapes(grads, params)
    chex.assert_trees_all_equal(grads["layers/1/bias"], jnp.ones(2))


def test_merge_is_strict():
    skeleton = tree.Skeleton(make)
    params, stats = tree.split(make())
    params["extra"] = params.pop("layers/0/bias")
    with pytest.raises(ValueError, match=r"missing \['layers/0/bias'\], unknown \['extra'\]"):
        skeleton.merge(params, stats)


def test_first_match():
    rules = (("^head/", "a"), ("bias$", "b"), (".*", "c"))
    assert [tree.first_match(rules, p) for p in ("head/bias", "x/bias", "x/kernel")] == list("abc")
    with pytest.raises(ValueError, match="no rule matches 'x'"):
        tree.first_match(rules[:2], "x")
