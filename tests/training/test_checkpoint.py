"""Checkpoints: what is kept, and that damage is noticed and survived."""

import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from avt_jax.errors import UserError
from avt_jax.training import mesh as meshes
from avt_jax.training.checkpoint import Checkpointer, load_run
from avt_jax.training.state import TrainState

RULES = (("kernel", "fsdp"), (".*", "replicate"))
OPTIMIZER = optax.adamw(1e-3)


def state_at(step, *, with_ema=True, width=8):
    params = {
        "a/kernel": jnp.arange(4.0 * width).reshape(4, width) + step,
        "b/bias": jnp.ones(3) * step,
    }
    return TrainState(
        step=jnp.int32(step),
        params=params,
        stats={"bn/mean": jnp.full(2, step, jnp.float32)},
        ema={k: v + 0.5 for k, v in params.items()} if with_ema else {},
        opt_state=OPTIMIZER.init(params),
    )


def shardings(state, *, fsdp=1, devices=None):
    mesh = meshes.make_mesh(meshes.MeshConfig(-1, fsdp, RULES), devices)
    return meshes.variable_shardings(mesh, state, meshes.MeshConfig(rules=RULES, min_cut_mb=0))


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    facts = {"label_sets": {"label": ["cat", "dog"]}, "records": {"frame_rate_hz": 8}}
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


def write(run_dir, steps, scores=None, **options):
    with_closing = Checkpointer(run_dir, keep_last=2, keep_best=1)
    for step in steps:
        state = state_at(step, **options)
        with_closing.save(state, {"batches": step}, (scores or {}).get(step))
    with_closing.close()


def read(run_dir, like, places):
    checkpointer = Checkpointer(run_dir, keep_last=2, keep_best=1)
    try:
        return checkpointer.restore(like, places)
    finally:
        checkpointer.close()


def damage(step_folder):
    """Flips a byte in the middle of every data file of a step."""
    for file in step_folder.rglob("d/*"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)


@pytest.mark.parametrize("with_ema", [True, False])
def test_round_trip_onto_another_mesh(run_dir, with_ema):
    write(run_dir, [3], with_ema=with_ema)
    like = state_at(0, with_ema=with_ema)
    places = shardings(like, fsdp=4)
    state, position = read(run_dir, like, places)
    chex.assert_trees_all_equal(state, state_at(3, with_ema=with_ema))
    assert position == {"batches": 3}
    assert state.params["a/kernel"].sharding.spec == places.params["a/kernel"].spec
    assert jax.tree.structure(state) == jax.tree.structure(like)


def test_from_mesh_to_mesh_to_one_device(run_dir):
    """4 x 2, then 8 x 1, then one device: the same state, leaf by leaf, wherever it lies."""
    one = jax.devices()[:1]
    state = jax.device_put(state_at(3), shardings(state_at(3), fsdp=2))
    for fsdp, devices in ((2, None), (1, None), (1, one), (2, None)):
        shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
        checkpointer = Checkpointer(run_dir, keep_last=2, keep_best=1)
        checkpointer.save(state, {"batches": 3})
        checkpointer.close()
        places = shardings(state_at(0), fsdp=fsdp, devices=devices)
        state, position = read(run_dir, state_at(0), places)
        chex.assert_trees_all_equal(state, state_at(3))
        assert position == {"batches": 3}
        assert state.params["a/kernel"].sharding == places.params["a/kernel"]
        assert len(state.params["a/kernel"].sharding.device_set) == (1 if devices else 8)
        chex.assert_trees_all_equal(load_run(run_dir).params, state_at(3).ema)


def test_nothing_there(run_dir):
    like = state_at(0)
    assert read(run_dir, like, shardings(like)) is None


def test_keeps_last_and_best(run_dir):
    write(run_dir, [1, 2, 3, 4, 5], {1: 0.9, 2: 0.1, 4: 0.5})
    kept = sorted(int(p.name) for p in (run_dir / "checkpoints").iterdir())
    assert kept == [1, 4, 5]
    assert load_run(run_dir).step == 1 and load_run(run_dir, "last").step == 5


def test_load_run_prefers_the_average(run_dir):
    write(run_dir, [2])
    run = load_run(run_dir)
    chex.assert_trees_all_equal(run.params, state_at(2).ema)
    chex.assert_trees_all_equal(run.stats, state_at(2).stats)
    assert run.label_sets == {"label": ("cat", "dog")}
    assert all(isinstance(leaf, np.ndarray) for leaf in run.params.values())
    raw = load_run(run_dir, weights="raw")
    chex.assert_trees_all_equal(raw.params, state_at(2).params)
    chex.assert_trees_all_equal(raw.stats, run.stats)
    assert (run.weights, raw.weights) == ("averaged", "raw")
    with pytest.raises(UserError, match=r"weights='ema' is not known; give 'averaged' or 'raw'"):
        load_run(run_dir, weights="ema")


@pytest.mark.parametrize("weights", ["averaged", "raw"])
def test_a_run_without_an_average_has_one_set_of_weights(run_dir, weights):
    write(run_dir, [2], with_ema=False)
    run = load_run(run_dir, weights=weights)
    chex.assert_trees_all_equal(run.params, state_at(2, with_ema=False).params)
    assert run.weights == ""


@pytest.mark.parametrize("kind", ["flipped", "truncated", "missing"])
def test_falls_back_to_an_older_checkpoint(run_dir, kind, capsys):
    write(run_dir, [1, 2])
    newest = run_dir / "checkpoints" / "2"
    if kind == "flipped":
        damage(newest)
    elif kind == "truncated":
        for file in newest.rglob("d/*"):
            file.write_bytes(file.read_bytes()[:20])
    else:
        shutil.rmtree(newest / "state")
    assert load_run(run_dir).step == 1
    like = state_at(0)
    state, position = read(run_dir, like, shardings(like))
    assert int(state.step) == 1 and position == {"batches": 1}
    assert "checkpoint 2 is damaged" in capsys.readouterr().err
    assert (run_dir / "checkpoints" / "2.damaged").is_dir(), "nothing is deleted"
    write(run_dir, [2])  # the same step can be written again
    assert load_run(run_dir, "last").step == 2


def test_values_altered_behind_the_format_are_noticed(run_dir):
    """A checkpoint that reads without complaint but holds other numbers than were saved."""
    write(run_dir, [1])
    meta = run_dir / "checkpoints" / "1" / "meta" / "metadata"
    content = json.loads(meta.read_text())
    content["checksums"]["ema"] ^= 1
    meta.write_text(json.dumps(content))
    with pytest.raises(UserError, match="no intact checkpoint"):
        load_run(run_dir)
    like = state_at(0)
    with pytest.raises(UserError, match="intact"):
        read(run_dir, like, shardings(like))


def test_swapped_values_change_the_checksum(run_dir):
    from avt_jax.training.checkpoint.checksum import checksum

    x = jnp.arange(6.0)
    assert int(checksum({"a": x})) != int(checksum({"a": x[::-1]}))
    assert int(checksum({"a": x})) != int(checksum({"b": x}))
    assert int(checksum({"a": x})) == int(checksum({"a": np.asarray(x)}))


def test_checkpoint_of_another_model(run_dir):
    write(run_dir, [1])
    like = state_at(0, width=16)
    with pytest.raises(UserError, match=r"a/kernel is \(4, 8\) there and \(4, 16\)"):
        read(run_dir, like, shardings(like))


def test_not_a_run_folder(tmp_path):
    with pytest.raises(UserError, match="config.json is missing"):
        load_run(tmp_path)
