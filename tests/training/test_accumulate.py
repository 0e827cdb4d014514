"""A batch in micro-batches trains as the whole batch does: losses, metrics, gradients, draws."""

import shutil

import chex
import jax
import numpy as np
import optax
import pytest

import avt_jax
from avt_jax import axes
from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.experiment.cost import profile_config
from avt_jax.experiment.cost.profile import step_arguments
from avt_jax.profiling import flops, xla
from avt_jax.training import mesh as meshes
from avt_jax.training.step.accumulate import check_micro_batches
from avt_jax.tree.micro_batches import MicroBatch, together

CLIPS = 16
TERMS = ("classification", "contrastive", "matching", "masked_audio", "masked_video")
# No BatchNorm, and every kind of draw: drop path, what is hidden, which negatives.
MODEL = {
    "drop_path": 0.3,
    "decoders": ("audio", "video"),
    "num_blocks": 1,
    "dim": 16,
    "num_heads": 2,
    "decoder_dim": 16,
    "projection_dim": 16,
    "video_encoder": {"name": "vit", "depth": 1, "dim": 16, "num_heads": 2, "drop_path": 0.3},
    "audio_encoder": {"name": "ast", "depth": 1, "dim": 16, "num_heads": 2, "drop_path": 0.3},
}


def experiment(accumulate, weights, *, devices=1, **changes):
    config = load_config(
        "epic_kitchens_100:smoke",
        {
            "data.path": "generated:32:verb=3,noun=5",
            "model": MODEL,
            "optimizer": {"warmup_epochs": 0.0, "clip_norm": 0.0, "lr": 1e-3},
            "losses.weights": dict.fromkeys(TERMS, 0.0) | weights,
            "losses.matching_group": 4,
            "train": {"batch_size": CLIPS, "steps": 4, "accumulate": accumulate},
            **changes,
        },
    )
    return Experiment(config, devices=jax.devices()[:devices])


def first_batch(made):
    batches = made.train_batches()
    batch = next(batches)
    batches.close()
    assert not batch[axes.HAS_AUDIO].all(), "the case should hold mute clips"
    batch[axes.VALID] = np.arange(CLIPS) % 7 != 5  # so the micro-batches' counts differ
    return batch


def step_once(made, batch):
    """({metric: (sum, count)}, {path: gradient}, state): after one packed step."""
    state, places = made.init_state()
    step = made.packed_step(places, state)
    on_device = meshes.to_device(batch, made.mesh)
    state, metrics = step(step.pack(state), on_device, jax.random.key(5))
    state = step.unpack(state)
    metrics = {name: tuple(map(float, pair)) for name, pair in metrics.items()}
    # After one step, Adam's first moment is a tenth of the gradient.
    (moments,) = (m for _, m in optax.tree_utils.tree_get_all_with_path(state.opt_state, "mu"))
    return metrics, {path: 10 * np.asarray(x) for path, x in moments.items()}, state


def assert_same(found, expected):
    metrics, gradients, state = found
    assert metrics.keys() == expected[0].keys()
    for name, pair in metrics.items():
        np.testing.assert_allclose(pair, expected[0][name], rtol=1e-5, atol=1e-6, err_msg=name)
    whole = np.sqrt(sum(np.square(x).sum() for x in expected[1].values()))
    assert whole > 0
    for path, one in expected[1].items():
        # Some gradients are zero but for rounding: a bias before a normalisation, or of the keys.
        allowed = 1e-5 * np.linalg.norm(one) + 1e-7 * whole
        assert np.linalg.norm(gradients[path] - one) <= allowed, path
        # Adam's first step is the gradient's sign wherever it is more than rounding.
        sure = np.abs(one) > 1e-4 * whole / np.sqrt(one.size)
        new, old = np.asarray(state.params[path]), np.asarray(expected[2].params[path])
        np.testing.assert_allclose(new[sure], old[sure], atol=1e-6, err_msg=path)


# Alone: one of a pass of its own, one with two passes, one that draws what is hidden.
CASES = [{name: 1.0} for name in ("classification", "contrastive", "masked_audio")]
CASES.append(dict.fromkeys(TERMS, 0.5))


@pytest.mark.parametrize("weights", CASES, ids=lambda weights: "+".join(weights))
def test_micro_batches_make_the_whole_batchs_step(weights):
    one = experiment(1, weights)
    batch = first_batch(one)
    expected = step_once(one, batch)
    for name in weights:
        assert expected[0][name][0] > 0
    assert_same(step_once(experiment(4, weights), batch), expected)


@pytest.mark.parametrize("devices", [1, 8])
def test_class_weights_are_of_the_whole_batch(devices):
    changes = {"losses.class_weights": "balanced"}
    weights = {"classification": 1.0}
    one = experiment(1, weights, **changes)
    spread = {name: np.ptp(weight_y) for name, weight_y in one.class_weights.items()}
    assert min(spread.values()) > 0.1, "the classes should weigh differently"
    batch = first_batch(one)
    expected = step_once(one, batch)
    several = experiment(1 if devices > 1 else 4, weights, devices=devices, **changes)
    assert_same(step_once(several, batch), expected)


def test_label_smoothing_and_mixed_clips():
    changes = {"mixing": {"mixup_alpha": 1.0, "cutmix_alpha": 1.0}, "losses.label_smoothing": 0.2}
    weights = {"classification": 1.0}
    one = experiment(1, weights, **changes)
    batch = first_batch(one)
    assert_same(step_once(experiment(4, weights, **changes), batch), step_once(one, batch))


@pytest.mark.parametrize("form", ("softmax", "sigmoid"))
def test_the_loss_weights_may_still_grow_and_the_forms_of_the_contrastive_loss(form):
    weights = {"classification": 1.0, "contrastive": 1.0}
    changes = {"losses.contrastive_form": form, "losses.warmup_steps": 4}
    made = [experiment(n, weights, **changes) for n in (1, 2)]
    batch = first_batch(made[0])
    results = []
    for one in made:
        state, places = one.init_state()
        step = one.packed_step(places, state)
        state = step.pack(state)
        for _ in range(2):
            state, metrics = step(state, meshes.to_device(batch, one.mesh), jax.random.key(5))
        results.append({name: float(total) for name, (total, _) in metrics.items()})
    assert results[0]["contrastive"] > 0
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_eight_devices_agree_with_one():
    weights = dict.fromkeys(TERMS, 0.5)
    changes = {"losses.matching_group": 2}
    one = experiment(2, weights, **changes)
    batch = first_batch(one)
    many = experiment(2, weights, devices=8, **changes)  # groups of two on two devices
    assert_same(step_once(many, batch), step_once(one, batch))


def test_no_clip_leaves_its_device():
    made = experiment(2, {"classification": 1.0}, devices=8)
    state, places = made.init_state()
    step = made.packed_step(places, state)
    batch = meshes.to_device(first_batch(made), made.mesh)
    text = step.jitted.lower(step.pack(state), batch, jax.random.key(0)).compile().as_text()
    moves = ("all-gather", "all-to-all", "collective-permute")
    assert "all-reduce" in text
    assert not [line for line in text.splitlines() if any(f"{m}(" in line for m in moves)]


def test_batch_statistics_are_the_mean_of_the_micro_batches():
    uniformer = {"video_encoder": {"name": "uniformer", "variant": "smoke"}}
    weights = {"classification": 1.0}
    found = {}
    for frozen in (False, True):
        video = uniformer["video_encoder"] | {"freeze_bn": frozen}
        changes = {"model": MODEL | {"video_encoder": video}}
        made = [experiment(n, weights, **changes) for n in (1, 4)]
        batch = first_batch(made[0])
        found[frozen] = [step_once(one, batch) for one in made]
    assert_same(found[True][1], found[True][0])
    whole, parts = (result[2].stats for result in found[False])
    first = min(path for path in whole if path.endswith("mean"))
    start = made[0].init_state()[0].stats[first]
    assert not np.allclose(whole[first], start)
    # The first layer sees the same clips: the mean of all is the mean of the parts' means.
    np.testing.assert_allclose(parts[first], whole[first], rtol=1e-4, atol=1e-6)


def test_a_step_needs_the_memory_of_a_micro_batch():
    bytes_ = {}
    for accumulate in (1, 4):
        made = experiment(accumulate, {"classification": 1.0, "contrastive": 1.0})
        state, batch, key = step_arguments(made, CLIPS)
        step = made.packed_step(made.init_state()[1], state)
        packed = jax.eval_shape(step.pack, state)
        bytes_[accumulate] = xla.temporary_bytes(step.jitted, packed, batch, key)
    assert bytes_[4] < 0.6 * bytes_[1]


def test_a_run_goes_on_from_its_checkpoint_with_other_micro_batches(tmp_path):
    weights = {"classification": 1.0, "contrastive": 1.0}

    def trained(folder, steps, accumulate):
        # The rate is constant, so that it does not depend on the length.
        changes = {"train.steps": steps, "optimizer.min_lr": 1e-3}
        made = experiment(accumulate, weights, **changes)
        return avt_jax.train(made, tmp_path / folder).state

    straight = trained("straight", 2, 2)
    trained("stopped", 1, 2)
    shutil.copytree(tmp_path / "stopped", tmp_path / "changed")
    chex.assert_trees_all_equal(trained("stopped", 2, 2).params, straight.params)
    other = trained("changed", 2, 4)
    assert int(other.step) == 2
    for path, value in other.params.items():
        # Where a gradient is rounding alone, Adam's step is its sign.
        np.testing.assert_allclose(value, straight.params[path], atol=2.1e-3, err_msg=path)


def counted(accumulate, weights):
    made = experiment(accumulate, weights)
    step = jax.jit(made.step).trace(*step_arguments(made, CLIPS)).jaxpr.jaxpr
    return flops.of_step(step)[0]


def test_operations_are_counted_as_often_as_they_run():
    classify = {"classification": 1.0}
    assert counted(4, classify) == counted(1, classify), "counting clips needs no model"
    compare = {"contrastive": 1.0}
    more = counted(4, compare) / counted(1, compare)
    assert 1.25 < more < 1.45, "a second forward pass of the encoders, of three passes' cost"
    found = [
        profile_config(
            experiment(n, compare).config,
            {"verb": 3, "noun": 5},
            batch_size=CLIPS,
            forward_memory=False,
            training_memory=False,
        ).step_flops
        for n in (1, 4)
    ]
    assert 1.25 < found[1] / found[0] < 1.5


def test_parts_are_dealt_out_in_turn_and_put_together_again():
    rows = np.arange(24).reshape(12, 2)
    parts = [MicroBatch(np.int32(i), 2, 12, 3) for i in range(2)]
    np.testing.assert_array_equal(parts[0].take(rows)[:, 0] // 2, [0, 1, 2, 6, 7, 8])
    # Two entries for each clip stay side by side.
    np.testing.assert_array_equal(parts[1].take(np.arange(24))[:6], np.arange(6, 12))
    stacked = np.stack([part.take(rows) for part in parts])
    np.testing.assert_array_equal(together(stacked, 12, 3), rows)
    columns = np.asarray(parts[1].take(rows.T, axis=1))
    np.testing.assert_array_equal(columns, np.asarray(parts[1].take(rows)).T)


@pytest.mark.parametrize(
    ("number", "clips", "devices", "neighbours", "words"),
    (
        (3, 16, 1, 1, "does not divide the batch of 16 clips"),
        (4, 16, 8, 1, "micro-batches of 4 clips do not divide over 8 devices.*multiple of 32"),
        (4, 16, 1, 8, "among 8 neighbouring clips.*matching_group to a divisor of 4"),
        (2, 16, 1, 0, "among all clips.*matching_group to a divisor of 8"),
    ),
)
def test_what_cannot_be_cut_is_refused(number, clips, devices, neighbours, words):
    with pytest.raises(UserError, match=words):
        check_micro_batches(number, clips, devices, neighbours)
    check_micro_batches(1, clips, devices, neighbours)


def test_refused_before_anything_is_computed():
    made = experiment(8, {"matching": 1.0})
    with pytest.raises(UserError, match="accumulate is 8, and matching"):
        made.train_batches()
