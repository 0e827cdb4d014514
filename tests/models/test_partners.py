"""Clips that take from others of their group, on one device and on several."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from avt_jax.models.partners import interleaved, take_clips
from avt_jax.training.mesh import MeshConfig, make_mesh

BATCH = 24


def on_a_mesh(function, fsdp, x, *others):
    """A function of a batch over eight devices, traced as the training step is; and its text."""
    mesh = make_mesh(MeshConfig(fsdp=fsdp))
    rows = NamedSharding(mesh, P(("data", "fsdp")))

    def traced(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    jitted = jax.jit(traced, in_shardings=rows, out_shardings=rows)
    args = [jax.device_put(value, rows) for value in (x, *others)]
    return jitted(*args), jitted.lower(*args).compile().as_text()


def drawn(group, rng):
    """Tokens, and for each clip one of its group."""
    x = jnp.asarray(rng.normal(size=(BATCH, 2, 3)), jnp.float32)
    first = np.arange(BATCH) // (group or BATCH) * (group or BATCH)
    size = np.minimum(group or BATCH, BATCH - first)
    return x, jnp.asarray(first + rng.integers(0, size), jnp.int32)


# Of 24 clips on 8 devices each has 3: groups within a device, over two or all, and across parts.
@pytest.mark.parametrize("group", (0, 1, 3, 6, 24, 32, 5, 8))
@pytest.mark.parametrize("fsdp", (1, 4))
def test_taking_and_its_gradient_equal_indexing(group, fsdp, rng):
    x, index_b = drawn(group, rng)
    weight = jnp.asarray(rng.normal(size=x.shape), jnp.float32)

    def loss(x, index_b, weight):
        taken = take_clips(x, index_b, group)
        return (jnp.sin(taken) * weight).sum((1, 2)), taken

    def both(x, index_b, weight):
        gradient = jax.grad(lambda x: loss(x, index_b, weight)[0].sum())(x)
        return loss(x, index_b, weight)[1], gradient

    (taken, gradient), _ = on_a_mesh(both, fsdp, x, index_b, weight)
    np.testing.assert_array_equal(taken, x[index_b])
    want = jnp.zeros_like(x).at[index_b].add(jnp.cos(x[index_b]) * weight)
    np.testing.assert_allclose(gradient, want, atol=1e-6)


def test_groups_move_no_more_than_their_tokens(rng):
    x, index_b = drawn(6, rng)
    # Two devices have a group: each hands its part to the other once.
    _, text = on_a_mesh(lambda x, index_b: take_clips(x, index_b, 6), 1, x, index_b)
    assert "all-gather" not in text and "all-to-all" not in text
    assert text.count(" collective-permute(") == 1
    x, index_b = drawn(3, rng)
    _, text = on_a_mesh(lambda x, index_b: take_clips(x, index_b, 3), 1, x, index_b)
    assert "all-gather" not in text and "collective-permute" not in text


def test_pairs_stand_side_by_side_and_move_nothing(rng):
    x = jnp.asarray(rng.normal(size=(8, 2)), jnp.float32)
    pairs, text = on_a_mesh(interleaved, 1, x, -x)
    np.testing.assert_array_equal(pairs[0::2], x)
    np.testing.assert_array_equal(pairs[1::2], -x)
    for kind in ("all-gather", "all-to-all", "collective-permute", "all-reduce"):
        assert kind not in text
