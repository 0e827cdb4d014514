"""Rules over parameters' paths: decay, learning rates, what is frozen; also in packed form."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.experiment.cost.profile import step_arguments
from avt_jax.models.depths import layers_above
from avt_jax.profiling import flops
from avt_jax.training import mesh as meshes
from avt_jax.training.optimizer import OptimizerConfig

CLASSES = {"verb": 3, "noun": 5}
TOWERS = {
    "model": {
        "num_blocks": 3,
        "decoders": (),
        "drop_path": 0.0,
        "dim": 16,
        "num_heads": 2,
        "video_encoder": {"name": "vit", "depth": 3, "dim": 16, "num_heads": 2},
        "audio_encoder": {"name": "ast", "depth": 4, "dim": 16, "num_heads": 2},
    },
    "losses.weights": {"contrastive": 0.0, "matching": 0.0, "masked_audio": 0.0},
}


def experiment(optimizer, **changes):
    """One step at rate 0.1, not clipped."""
    plain = {"warmup_epochs": 0.0, "lr": 0.1, "clip_norm": 0.0, "weight_decay": 0.5}
    config = load_config(
        "epic_kitchens_100:smoke", TOWERS | {"optimizer": plain | optimizer} | changes
    )
    return Experiment(config, devices=jax.devices()[:1])


def moved(made, steps=1):
    """({path: how far a step has moved a parameter}, first parameters, state)."""
    state, places = made.init_state()
    before = jax.device_get(state.params)
    step = made.packed_step(places, state)
    batches = made.train_batches()
    state = step.pack(state)
    for _ in range(steps):
        batch = meshes.to_device(next(batches), made.mesh)
        state, _ = step(state, batch, jax.random.key(0))
    batches.close()
    state = step.unpack(state)
    after = jax.device_get(state.params)
    return {path: after[path] - before[path] for path in before}, before, state


@pytest.fixture(scope="module")
def plain():
    return moved(experiment({}))[0]


def test_layers_above_of_avt():
    made = Experiment(
        load_config("vggsound", {"model.decoders": ("audio", "video")}), classes={"label": 3}
    )
    above = layers_above(made.skeleton.params)
    assert above.keys() == made.skeleton.params.keys()

    def at(pattern):
        found = {number for path, number in above.items() if re.search(pattern, path)}
        assert len(found) == 1, (pattern, found)
        return found.pop()

    top = r"^(head|match_head|\w+_decoder|contrastive_\w+|\w+_embed)(/|$)|^fusion/\w+_blocks/3/"
    assert at(top) == 0
    # UniFormer-B: 5, 8, 20 and 7 blocks; four blocks of fusion above.
    assert at("^fusion/(audio_blocks/0/|bottleneck)") == 3
    assert at("^video_encoder/(blocks4/6/|norm/)|^video_proj/") == 4
    assert at("^video_encoder/(blocks4/0/|patch_embed4/)") == 4 + 6
    assert at("^video_encoder/(blocks3/19/)") == 4 + 7
    assert at("^video_encoder/blocks1/0/") == 4 + 39
    assert at("^video_encoder/patch_embed1/") == 4 + 40
    assert at("^audio_encoder/(blocks/11/|norm/)") == 4
    assert at("^audio_encoder/blocks/0/") == 4 + 11
    stem = "^audio_encoder/(patch_embed|pos_embed|cls_token|dist_token)|^audio_mask_token"
    assert at(stem) == 4 + 12


@pytest.mark.parametrize(
    ("fusion", "part"),
    (("bottleneck", "video"), ("merged", "video")),
)
def test_layers_above_of_mbt(fusion, part):
    made = Experiment(load_config("mbt_vggsound", {"model.fusion": fusion}), classes={"label": 3})
    above = layers_above(made.skeleton.params)
    assert above[f"{part}/blocks/11/mlp/fc1/kernel"] == 0
    assert above[f"{part}/blocks/0/mlp/fc1/kernel"] == 11
    assert above[f"{part}/embed/proj/kernel"] == 12
    assert above["heads/label/kernel"] == above["norm/scale"] == 0


@pytest.mark.parametrize("fusion", ("merged", "cross_attention"))
def test_layers_above_of_other_fusions(fusion):
    made = experiment({}, **{"model.fusion": fusion})
    above = layers_above(made.skeleton.params)
    of_fusion = {path: number for path, number in above.items() if path.startswith("fusion/")}
    assert set(of_fusion.values()) == {0, 1, 2}
    assert above["audio_encoder/blocks/3/attn/proj/bias"] == 3
    assert above["audio_encoder/blocks/0/attn/proj/bias"] == 6


def test_each_layer_learns_at_its_own_rate(plain):
    slow, _, _ = moved(experiment({"layer_decay": 0.5, "lr_scale_rules": (("^head/", 2.0),)}))
    above = layers_above(plain)
    assert set(above.values()) == set(range(8))
    for path, step in plain.items():
        factor = 0.5 ** above[path] * (2.0 if path.startswith("head/") else 1.0)
        np.testing.assert_allclose(slow[path], factor * step, rtol=1e-3, atol=1e-6, err_msg=path)


def test_decay_follows_the_rules(plain):
    rules = (("blocks/1/mlp/fc2/kernel", 0.0), ("mlp/fc2/kernel", 2.0), ("norm1/scale", 1.0))
    other, before, _ = moved(experiment({"weight_decay_rules": rules}))
    seen = set()
    for path, step in plain.items():
        default = float(sum(n > 1 for n in step.shape) > 1)
        found = [value for pattern, value in rules if re.search(pattern, path)]
        factor = found[0] if found else default
        seen.add((factor, default))
        expected = step - 0.1 * 0.5 * (factor - default) * before[path]
        np.testing.assert_allclose(other[path], expected, rtol=1e-3, atol=2e-6, err_msg=path)
    assert seen == {(0.0, 1.0), (2.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)}


FROZEN = ("^audio_encoder/", r"^video_encoder/blocks/[01]/", "^head/audio_norm/")


def is_frozen(path):
    return any(re.search(pattern, path) for pattern in FROZEN)


def test_what_is_frozen_stays_and_the_rest_goes_on_as_before(plain):
    made = experiment({"frozen": FROZEN}, **{"optimizer.ema_decay": 0.5})
    steps, _, state = moved(made)
    for path, step in steps.items():
        if not path.startswith(("contrastive_", "match_head/")):  # no term needs them here
            assert (not step.any()) == is_frozen(path), path
        if not is_frozen(path):
            np.testing.assert_allclose(step, plain[path], rtol=1e-3, atol=1e-6, err_msg=path)
    # Moments: none of a frozen tower; those of a tower that is frozen in part are 0.
    (mu,) = (m for _, m in optax.tree_utils.tree_get_all_with_path(state.opt_state, "mu"))
    assert not [path for path in mu if path.startswith(("audio_encoder/", "head/audio_norm/"))]
    assert not np.any(mu["video_encoder/blocks/1/mlp/fc1/kernel"])
    assert np.any(mu["video_encoder/blocks/2/mlp/fc1/kernel"])
    assert state.ema.keys() == state.params.keys()


def test_a_rate_of_zero_is_frozen():
    made = experiment({"lr_scale_rules": (("^audio_encoder/", 0.0), (".*", 0.5))})
    frozen = [path for path in made.skeleton.params if made.skeleton.packing.is_frozen(path)]
    assert frozen and all(path.startswith("audio_encoder/") for path in frozen)


@pytest.mark.parametrize("accumulate", (1, 2))
def test_no_gradient_is_computed_below_what_is_trained(accumulate):
    def counted(frozen):
        changes = {"model.modalities": "audio", "train.accumulate": accumulate}
        made = experiment({"frozen": frozen}, **changes)
        step = jax.jit(made.step).trace(*step_arguments(made, 8)).jaxpr.jaxpr
        return flops.of_step(step)[0]

    # Of the encoder's three passes one is left, and it is more than half of this model. Without
    # its weights' gradient alone, two would be.
    assert counted(("^audio_encoder/",)) < 0.65 * counted(())


def test_clipping_and_the_norm_look_at_what_is_trained():
    def norm(frozen):
        made = experiment({"frozen": frozen, "clip_norm": 1e-3, "name": "sgd"})
        state, places = made.init_state()
        batches = made.train_batches()
        batch = meshes.to_device(next(batches), made.mesh)
        batches.close()
        step = made.packed_step(places, state)
        state, metrics = step(step.pack(state), batch, jax.random.key(0))
        trace = step.unpack(state).opt_state[1].trace
        kept = np.sqrt(sum(np.square(np.asarray(x)).sum() for x in trace.values()))
        np.testing.assert_allclose(kept, 1e-3, rtol=1e-4)
        return float(metrics["grad_norm"][0])

    # A tower that is frozen in part adds only its other layers.
    assert norm((r"^video_encoder/blocks/[01]/",)) < norm(())


@pytest.mark.parametrize(
    ("optimizer", "words"),
    (
        ({"frozen": ("^audio_encodr/blocks",)}, "frozen: '.audio_encodr/blocks' matches no param"),
        ({"lr_scale_rules": (("nothing/at/all", 0.5),)}, "lr_scale_rules: 'nothing/at/all'"),
        ({"weight_decay_rules": (("video_encoder/norm/scal$", 0.5),)}, "did you mean 'video_enc"),
        ({"frozen": (".*",)}, "leave no parameter to train"),
    ),
)
def test_rules_that_do_nothing_are_refused(optimizer, words):
    with pytest.raises(UserError, match=words):
        _ = experiment(optimizer).optimizer


def test_bad_expressions_are_refused():
    with pytest.raises(UserError, match=r"frozen: '\(' is no regular expression"):
        OptimizerConfig(frozen=("(",))
    with pytest.raises(
        UserError, match="lr_scale_rules is .*; give any number of groups of a text"
    ):
        OptimizerConfig(lr_scale_rules=(("a", -1.0),))


def test_frozen_small_arrays_have_an_entry_of_their_own():
    made = experiment({"frozen": FROZEN})
    packing = made.skeleton.packing
    params, _ = jax.tree.map(
        lambda leaf: jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape),
        (made.skeleton.params, made.skeleton.stats),
    )
    packed = packing.pack(params)
    trained, frozen = packing.divide(packed)
    assert trained and frozen and len(packed) == len(trained) + len(frozen)
    chex.assert_trees_all_equal(packing.unpack(packed), params)
    of_frozen = packing.unpack(frozen)
    assert set(of_frozen) == {path for path in params if packing.is_frozen(path)}
