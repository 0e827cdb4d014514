"""One device and eight give the same training of the full objective, however it is sharded.

Layers run in a loop, the state is packed, and on eight devices mining crosses from one to another.
"""

import jax
import numpy as np
import optax

from avt_jax import axes
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.training import mesh as meshes

STEPS = 3
SHARDED = ((r"kernel|embedding", "fsdp"), (".*", "replicate"))


def train(devices, fsdp=1, rules=((".*", "replicate"),)):
    # Every term, with weights at which each can be seen in the total.
    terms = ("contrastive", "matching", "masked_audio", "masked_video")
    config = load_config(
        "epic_kitchens_100:smoke",
        {
            "optimizer": {"lr": 1e-3, "warmup_steps": 1},
            "seed": 1,
            "train.steps": STEPS,
            "model": {"drop_path": 0.2, "decoders": ("audio", "video")},
            "model.audio_encoder.depth": 3,
            "data.frame_size_px": 64,
            "losses.weights": dict.fromkeys(terms, 0.5),
            "losses.matching_group": 4,
            "mesh": {"fsdp": fsdp, "rules": rules, "min_cut_mb": 0.0},
        },
    )
    experiment = Experiment(config, devices=devices)
    state, places = experiment.init_state()
    step = experiment.packed_step(places, state)
    state = step.pack(state)
    assert len(jax.tree.leaves(state)) < len(jax.tree.leaves(places)) / 2
    cut = [leaf for leaf in jax.tree.leaves(state) if not leaf.is_fully_replicated]
    assert bool(cut) == (len(devices) > 1), "parameters and moments should lie in parts"
    found, first_gradients = [], None
    batches = experiment.train_batches()
    for _ in range(STEPS):
        batch = next(batches)
        assert not batch[axes.HAS_AUDIO].all(), "the case should hold mute clips"
        state, metrics = step(state, meshes.to_device(batch, experiment.mesh), jax.random.key(1))
        found.append({name: float(total) for name, (total, _) in metrics.items()})
        first_gradients = first_gradients or gradients(step.unpack(state))
    batches.close()
    return found, first_gradients


def gradients(state):
    """After one step, Adam's first moment is the gradient, scaled and clipped: {path: array}."""
    moments = optax.tree_utils.tree_get_all_with_path(state.opt_state, "mu")
    found = {}
    for _, moment in moments:
        found |= {k: np.asarray(v) for k, v in moment.items() if hasattr(v, "shape")}
    assert found.keys() == state.params.keys()
    return found


def test_eight_devices_agree_with_one():
    metrics_1, gradients_1 = train(jax.devices()[:1])
    # Parameters are cut in four, moments in eight.
    metrics_8, gradients_8 = train(jax.devices(), 4, SHARDED)
    for one, eight in zip(metrics_1, metrics_8, strict=True):
        terms = ("classification", "contrastive", "matching", "masked_audio", "masked_video")
        assert all(one[name] > 0 for name in terms)
        for name in ("loss", *terms, "grad_norm"):
            np.testing.assert_allclose(eight[name], one[name], rtol=1e-5, err_msg=name)
    whole = np.sqrt(sum(np.square(value).sum() for value in gradients_1.values()))
    for path, one in gradients_1.items():
        # Some gradients are zero but for rounding: a bias before a normalisation, or of the keys.
        allowed = 1e-5 * np.linalg.norm(one) + 1e-7 * whole
        assert np.linalg.norm(gradients_8[path] - one) <= allowed, path
