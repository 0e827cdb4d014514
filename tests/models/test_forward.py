"""What `Forward` computes beside logits: mismatched pairs and reconstructions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from avt_blocks import CLASSES, SPEC, block
from flax import nnx

from avt_jax import axes, tree
from avt_jax.models.build import build_model
from avt_jax.models.forward import Forward, Normalisation

NORMALISATION = Normalisation((0.5,) * 3, (0.5,) * 3, -4.0, 4.0)


@pytest.fixture(scope="module")
def model():
    fields = block(decoders=("audio", "video"))
    return build_model(fields, num_classes=CLASSES, input=SPEC, rngs=nnx.Rngs(0))


@pytest.fixture
def batch(rng):
    return {
        axes.VIDEO: rng.integers(0, 255, (3, 4, 32, 32, 3), np.uint8),
        axes.AUDIO: jnp.asarray(rng.normal(-4, 4, (3, 48, 32)), jnp.float32),
    }


def hiding(masked):
    masked = jnp.asarray(masked)
    return lambda batch, key: (masked, ~masked.any(1))


def forward(model, batch, **options):
    options = {"train": False, "key": jax.random.key(0)} | options
    return Forward(model, batch, NORMALISATION, **options)


def test_mismatched_pairs_are_those_of_another_batch(model, batch):
    audio_index, video_index = jnp.array([1, 2, 0]), jnp.array([2, 0, 1])
    other_audio, other_video = forward(model, batch).mismatch_logits(audio_index, video_index)
    swapped = batch | {axes.AUDIO: batch[axes.AUDIO][audio_index]}
    np.testing.assert_allclose(other_audio, forward(model, swapped).match_logits, atol=1e-6)
    swapped = batch | {axes.VIDEO: batch[axes.VIDEO][np.asarray(video_index)]}
    np.testing.assert_allclose(other_video, forward(model, swapped).match_logits, atol=1e-6)


def test_hidden_sound_does_not_reach_the_model_but_its_target(model, batch, rng):
    masked = rng.random((3, 6)) < 0.5
    masked[0] = [True, False, False, True, False, False]  # the first column of both rows
    run = forward(model, batch, hide={"audio": hiding(masked)}).reconstruction("audio")
    np.testing.assert_array_equal(run.masked_bm, masked)
    assert run.predicted_bmp.shape == run.target_bmp.shape == (3, 6, 256)
    other = batch | {axes.AUDIO: batch[axes.AUDIO].at[0, :16].add(5.0)}
    again = forward(model, other, hide={"audio": hiding(masked)}).reconstruction("audio")
    np.testing.assert_allclose(again.predicted_bmp, run.predicted_bmp, atol=1e-6)
    assert jnp.abs(again.target_bmp - run.target_bmp)[0, 0].max() > 0.5


def test_the_picture_helps_with_hidden_sound(model, batch):
    everything = {"audio": hiding(np.ones((3, 6), bool))}
    one = forward(model, batch, hide=everything).reconstruction("audio").predicted_bmp
    other = batch | {axes.VIDEO: 255 - batch[axes.VIDEO]}
    two = forward(model, other, hide=everything).reconstruction("audio").predicted_bmp
    assert jnp.abs(one - two).max() > 1e-6


def test_the_pass_with_hidden_video_leaves_the_running_statistics_alone(model, batch):
    skeleton = tree.Skeleton(lambda: model)
    params, stats = tree.split(model)
    hide = {"video": hiding(np.ones((3, 2), bool))}

    def statistics(ask):
        found = skeleton.merge(params, stats)
        asked = forward(found, batch, train=True, hide=hide)
        ask(asked)
        return tree.split(found)[1]

    both = statistics(lambda f: (f.logits, f.reconstruction("video")))
    alone = statistics(lambda f: f.logits)
    name = next(iter(stats))
    assert jnp.abs(alone[name] - stats[name]).max() > 0
    for path, value in alone.items():
        np.testing.assert_allclose(both[path], value, atol=1e-6, err_msg=path)


def test_a_shared_pass_classifies_what_is_left(model, batch):
    hide = {"audio": hiding(np.ones((3, 6), bool))}
    shared = forward(model, batch, hide=hide, shared_pass=True)
    apart = forward(model, batch, hide=hide)
    np.testing.assert_allclose(
        shared.reconstruction("audio").predicted_bmp,
        apart.reconstruction("audio").predicted_bmp,
        atol=1e-6,
    )
    silent = batch | {axes.AUDIO: batch[axes.AUDIO] * 0}
    other = forward(model, silent, hide=hide, shared_pass=True)
    np.testing.assert_allclose(shared.logits["verb"], other.logits["verb"], atol=1e-6)
    assert jnp.abs(shared.logits["verb"] - apart.logits["verb"]).max() > 1e-7


def test_keys_differ_by_use(model, batch):
    keys = [jax.random.key_data(forward(model, batch).key(use)).tolist() for use in range(4)]
    assert len(set(map(tuple, keys))) == 4
