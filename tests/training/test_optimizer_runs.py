"""Every optimiser trains, in the packed and the flat form alike, and goes on from a checkpoint."""

import chex
import jax
import numpy as np
import pytest

import avt_jax
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.training import mesh as meshes

# Kernels of 128 x 128 and more have their second moments factored; with three layers towers are
# stacked.
MODEL = {
    "modalities": "audio",
    "num_blocks": 3,
    "dim": 128,
    "num_heads": 2,
    "drop_path": 0.1,
    "audio_encoder": {"name": "ast", "depth": 3, "dim": 128, "num_heads": 2},
}
RATES = {"adamw": 1e-3, "adafactor": 1e-3, "lion": 1e-3, "sgd": 0.05}
OPTIMIZERS = [*RATES, "adamw bfloat16"]


def experiment(name, *, devices=2, **changes):
    name, *dtype = name.split()
    optimizer = {
        "name": name,
        "lr": RATES[name],
        "min_lr": RATES[name],
        "warmup_epochs": 0.0,
        "ema_decay": 0.5,
        "mu_dtype": dtype[0] if dtype else "float32",
        "layer_decay": 0.9,
    }
    config = load_config(
        "epic_kitchens_100:smoke",
        {
            "model": MODEL,
            "optimizer": optimizer,
            "losses.weights": {"contrastive": 0.0, "matching": 0.0, "masked_audio": 0.0},
            "losses.label_smoothing": 0.0,
            "mesh": {"fsdp": 2, "min_cut_mb": 0.0},
            **changes,
        },
    )
    return Experiment(config, devices=jax.devices()[:devices])


def state_bytes(name):
    state, _ = experiment(name).init_state()
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_batch_is_learned_and_flat_and_packed_agree(name):
    made = experiment(name)
    state, places = made.init_state()
    step = made.packed_step(places, state)
    batches = made.train_batches()
    batch = meshes.to_device(next(batches), made.mesh)
    batches.close()
    key = jax.random.key(0)
    flat, _ = jax.jit(meshes.within(made.mesh, made.step))(state, batch, key)
    state = step.pack(state)
    losses = []
    for i in range(12):
        state, metrics = step(state, batch, key)
        losses.append(float(metrics["loss"][0]))
        if not i:
            packed = step.unpack(state)
            assert jax.tree.structure(packed) == jax.tree.structure(flat)
            chex.assert_trees_all_equal_shapes_and_dtypes(packed, flat)
            for path, value in flat.params.items():
                # Where a gradient is rounding alone, as that of the keys' bias, a step is its sign.
                if not path.endswith("qkv/bias"):
                    assert np.mean(np.abs(packed.params[path] - value) > 1e-5) < 0.02, path
    assert losses[-1] < 0.7 * losses[0]


# The other two keep a part of what these keep.
@pytest.mark.parametrize("name", ["adafactor", "adamw bfloat16"])
def test_a_run_that_stopped_goes_on_bit_for_bit(name, tmp_path):
    def trained(folder, steps):
        made = experiment(name, **{"train.steps": steps})
        return avt_jax.train(made, tmp_path / folder).state

    straight = trained("straight", 3)
    trained("stopped", 2)
    chex.assert_trees_all_equal(trained("stopped", 3), straight)


def test_bytes_of_the_optimisers_states():
    size = {name: state_bytes(name) for name in OPTIMIZERS}
    parameters = sum(4 * leaf.size for leaf in experiment("adamw").skeleton.params.values())
    assert size["adamw"] == pytest.approx(2 * parameters, rel=1e-3)
    assert size["lion"] == pytest.approx(parameters, rel=1e-3)
    assert size["sgd"] == pytest.approx(parameters, rel=1e-3)
    assert size["adamw bfloat16"] == pytest.approx(1.5 * parameters, rel=1e-3)
    assert size["adafactor"] < 0.1 * parameters
