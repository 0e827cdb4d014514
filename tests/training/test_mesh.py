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
from avt_jax.training.state import TrainState
from avt_jax.tree import stacks

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


class Chip:
    """A TPU chip of a slice of 2 x 2, as JAX describes it."""

    platform, device_kind, core_on_chip = "tpu", "TPU v5 lite", 0

    def __init__(self, number):
        self.id, self.slice_index, self.process_index = number, number // 4, number // 4
        self.coords = (number % 2, number // 2 % 2, 0)


def test_slices_are_joined_along_the_batch():
    chips = [Chip(number) for number in (5, 0, 3, 6, 1, 4, 7, 2)]
    for fsdp in (1, 2, 4):
        found = meshes._across_slices(8 // fsdp, fsdp, 2, chips)
        assert found.shape == (8 // fsdp, fsdp)
        assert sorted(chip.id for chip in found.flat) == list(range(8))
        slices = np.vectorize(lambda chip: chip.slice_index)(found)
        assert (slices == slices[:, :1]).all(), "parameters are cut within a slice"
        assert slices[:, 0].tolist() == sorted(slices[:, 0]), "a slice's part of the batch is whole"
    with pytest.raises(UserError, match="fsdp=8 on 2 slices of 4 devices"):
        meshes.make_mesh(meshes.MeshConfig(-1, 8, COPY), chips)


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
    config = meshes.MeshConfig(rules=rules, min_cut_mb=0)
    specs = jax.tree.map(lambda s: s.spec, meshes.variable_shardings(mesh, state, config))
    assert specs["params"] == {
        "a/kernel": P(None, "fsdp"),
        "b/kernel": P("fsdp"),
        "c/kernel": P(),
        "head/kernel": P(),
    }
    assert specs["opt"][0].mu == specs["params"], "moments lie where their parameters lie"
    assert specs["opt"][0].count == P()


def test_moments_of_large_arrays_are_cut_over_all_devices():
    params = {
        "large/kernel": jnp.zeros((512, 512)),
        "small/kernel": jnp.zeros((8, 8)),
        "large/bias": jnp.zeros(2**18),
    }
    state = TrainState(
        step=jnp.int32(0),
        params=params,
        stats={},
        ema=dict(params),
        opt_state=optax.adamw(1e-3).init(params),
    )
    whole = {path: P() for path in params}
    for fsdp, of_parameter in ((1, P()), (4, P("fsdp"))):
        mesh, config = make(fsdp=fsdp), meshes.MeshConfig()
        found = meshes.variable_shardings(mesh, state, config)
        specs = jax.tree.map(lambda s: s.spec, found)
        assert specs.params == whole | {"large/kernel": of_parameter}
        assert specs.ema == whole | {"large/kernel": P(("data", "fsdp"))}
        assert specs.opt_state[0].mu == specs.opt_state[0].nu == specs.ema
        assert specs.step == specs.opt_state[0].count == P()


def test_stacks_are_cut_within_their_layers():
    # More layers than a layer's largest dimension, and a number of them that divides.
    flat = {f"blocks/{i}/kernel": jax.ShapeDtypeStruct((6, 4), jnp.float32) for i in range(8)}
    packing = stacks.Packing({"blocks": 8}, {}, {})
    stacked = {"blocks/each/kernel": jax.ShapeDtypeStruct((8, 6, 4), jnp.float32)}
    config = meshes.MeshConfig(rules=(("blocks/0/", "fsdp"), (".*", "replicate")), min_cut_mb=0)
    found = meshes.variable_shardings(make(fsdp=4), stacked, config, packing)
    assert found["blocks/each/kernel"].spec == P(None, None, "fsdp")
    assert set(flat) == set(packing.layers("blocks/each/kernel"))


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
