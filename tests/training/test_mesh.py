"""Mesh shapes, sharding rules and batches on eight simulated devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from avt_jax import axes
from avt_jax.errors import UserError
from avt_jax.training import mesh as meshes

COPY = ((".*", "replicate"),)


def make(data=-1, fsdp=1, rules=COPY):
    return meshes.make_mesh(meshes.MeshConfig(data, fsdp, rules))


def test_shapes():
    assert dict(make().shape) == {"data": 8, "fsdp": 1}
    assert dict(meshes.make_mesh(meshes.MeshConfig()).shape) == {"data": 8, "fsdp": 1}
    assert dict(make(fsdp=4).shape) == {"data": 2, "fsdp": 4}
    one = meshes.make_mesh(meshes.MeshConfig(-1, 1, COPY), jax.devices()[:1])
    assert dict(one.shape) == {"data": 1, "fsdp": 1}


@pytest.mark.parametrize("data,fsdp", [(3, 1), (-1, 3), (-1, 16)])
def test_devices_must_divide(data, fsdp):
    with pytest.raises(UserError, match="there are 8"):
        make(data, fsdp)


def test_rules_choose_the_largest_divisible_axis():
    mesh = make(fsdp=4)
    params = {
        "a/kernel": jnp.zeros((8, 64)),
        "b/kernel": jnp.zeros((64, 6)),
        "c/kernel": jnp.zeros((3, 5)),
        "head/kernel": jnp.zeros((64, 64)),
    }
    rules = (("^head/", "replicate"), ("kernel", "fsdp"), (".*", "replicate"))
    state = {"params": params, "opt": optax.adamw(1e-3).init(params)}
    specs = jax.tree.map(lambda s: s.spec, meshes.variable_shardings(mesh, state, rules))
    assert specs["params"] == {
        "a/kernel": P(None, "fsdp"),
        "b/kernel": P("fsdp"),
        "c/kernel": P(),
        "head/kernel": P(),
    }
    assert specs["opt"][0].mu == specs["params"], "moments lie where their parameters lie"
    assert specs["opt"][0].count == P()


def test_unknown_rule_is_named():
    with pytest.raises(UserError, match="'fdsp'"):
        meshes.MeshConfig(-1, 1, ((".*", "fdsp"),))


def test_batch_is_split_over_all_devices():
    mesh = make(fsdp=2)
    batch = {
        axes.AUDIO: np.arange(16.0).reshape(16, 1, 1),
        axes.LABELS: {"label": np.arange(16)},
        axes.ID: np.array(["x"] * 16),
    }
    placed = meshes.to_device(batch, mesh)
    assert set(placed) == {axes.AUDIO, axes.LABELS}, "strings stay on the host"
    chex.assert_trees_all_equal(np.asarray(placed[axes.AUDIO]), batch[axes.AUDIO])
    assert {s.data.shape for s in placed[axes.AUDIO].addressable_shards} == {(2, 1, 1)}


def test_batch_size_must_divide():
    assert meshes.check_batch_size(16, make()) == 16
    with pytest.raises(UserError, match="batch size 12 does not divide over 8"):
        meshes.check_batch_size(12, make())
