"""Mixup and CutMix: who is mixed with whom, and how much of each."""

import functools

import jax
import numpy as np
import pytest

from avt_jax import axes
from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.training import mesh as meshes
from avt_jax.training.mixing import MixingConfig, make_mix
from avt_jax.training.step import jit_train_step

ONLY_CLASSES = ("classification",)


def make_batch(size=8, seed=0):
    rng = np.random.default_rng(seed)
    return {
        axes.VIDEO: rng.integers(0, 256, (size, 2, 12, 16, 3), np.uint8),
        axes.AUDIO: rng.normal(-5, 4, (size, 20, 8)).astype(np.float32),
        axes.HAS_AUDIO: np.ones(size, bool),
        axes.HAS_VIDEO: np.ones(size, bool),
        axes.LABELS: {"label": rng.integers(0, 5, size).astype(np.int32)},
        axes.VALID: np.ones(size, bool),
    }


@functools.cache
def compiled(config):
    return jax.jit(make_mix(config, ONLY_CLASSES))


def mixed_by(batch, seed=0, **config):
    mix = compiled(MixingConfig(**config))
    return jax.tree.map(np.asarray, mix(batch, jax.random.key(seed)))


def test_off_is_nothing_at_all():
    assert make_mix(MixingConfig(), ("classification", "contrastive")) is None


def test_mixup_is_the_weighted_mean_with_the_clip_from_the_other_end():
    batch = make_batch()
    shares = set()
    for seed in range(5):
        out = mixed_by(batch, seed, mixup_alpha=0.8)
        share = out[axes.OWN_SHARE][0]
        assert (out[axes.OWN_SHARE] == share).all() and 0 <= share <= 1
        for name in (axes.VIDEO, axes.AUDIO):
            own = batch[name].astype(np.float32)
            expected = share * own + (1 - share) * own[::-1]
            np.testing.assert_allclose(out[name], expected, rtol=1e-4, atol=1e-3)
        np.testing.assert_array_equal(
            out[axes.PARTNER_LABELS]["label"], batch[axes.LABELS]["label"][::-1]
        )
        np.testing.assert_array_equal(out[axes.LABELS]["label"], batch[axes.LABELS]["label"])
        shares.add(float(share))
    assert len(shares) == 5


def test_cutmix_puts_one_box_of_the_partner_into_all_frames():
    batch = make_batch()
    for seed in range(8):
        out = mixed_by(batch, seed, cutmix_alpha=1.0)
        kept = []
        for name, last in ((axes.VIDEO, (1, 4)), (axes.AUDIO, ())):
            own = batch[name].astype(np.float32)
            from_partner = (out[name] == own[::-1]) & (own != own[::-1])
            assert ((out[name] == own) | from_partner).all()
            # One rectangle for all clips, frames and colours.
            inside_hw = from_partner.any((0, *last))
            rows, columns = inside_hw.any(1), inside_hw.any(0)
            np.testing.assert_array_equal(inside_hw, rows[:, None] & columns[None])
            for line in (rows, columns):
                assert np.diff(np.flatnonzero(line)).max(initial=1) == 1
            kept.append(1 - inside_hw.mean())
        assert abs(kept[0] - kept[1]) < 0.15  # the same share, in whole pixels
        np.testing.assert_allclose(out[axes.OWN_SHARE], np.mean(kept), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_are_drawn_from_the_beta_distribution(alpha):
    mix = make_mix(MixingConfig(mixup_alpha=alpha), ONLY_CLASSES)
    batch = jax.tree.map(lambda x: x[:2], make_batch())
    keys = jax.random.split(jax.random.key(1), 2000)
    shares = jax.jit(jax.vmap(lambda key: mix(batch, key)[axes.OWN_SHARE][0]))(keys)
    # Variance of Beta(a, a): 1 / (4 (2 a + 1)).
    np.testing.assert_allclose(np.mean(shares), 0.5, atol=0.04)
    np.testing.assert_allclose(np.var(shares), 1 / (4 * (2 * alpha + 1)), rtol=0.1)


def test_both_kinds_take_turns():
    batch = make_batch(2)
    kinds = []
    for seed in range(40):
        out = mixed_by(batch, seed, mixup_alpha=1.0, cutmix_alpha=1.0, cutmix_share=0.25)
        own = batch[axes.AUDIO]
        kinds.append(bool(((out[axes.AUDIO] == own) | (out[axes.AUDIO] == own[::-1])).all()))
    assert 3 <= sum(kinds) <= 18


def test_padding_is_neither_mixed_nor_mixed_in():
    batch = make_batch(4)
    batch[axes.VALID] = np.array([True, True, True, False])
    batch[axes.AUDIO][3] = np.nan
    out = mixed_by(batch, mixup_alpha=1.0)
    np.testing.assert_array_equal(out[axes.VIDEO][0], batch[axes.VIDEO][0])
    np.testing.assert_array_equal(out[axes.AUDIO][0], batch[axes.AUDIO][0])
    assert out[axes.OWN_SHARE][0] == 1 and out[axes.OWN_SHARE][1] < 1
    assert np.isfinite(out[axes.AUDIO][1:3]).all()


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"mixup_alpha": -1}, "config.mixing.mixup_alpha is -1; give a number from 0 to 100"),
        ({"cutmix_alpha": "1"}, "cutmix_alpha is '1'"),
        ({"cutmix_share": 1.5}, "cutmix_share is 1.5; give a number from 0 to 1"),
        ({"mixup_alpha": float("nan")}, "mixup_alpha is nan"),
    ],
)
def test_bad_values_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        MixingConfig(**changes)


def test_losses_that_need_whole_clips_are_refused():
    with pytest.raises(UserError, match="config.mixing is on together with the loss 'matching'"):
        make_mix(MixingConfig(mixup_alpha=0.5), ("classification", "matching"))


def test_a_training_that_cannot_be_mixed_says_so_at_once():
    config = load_config("kinetics_sounds:smoke", ["--config.mixing.mixup_alpha=0.8"])
    with pytest.raises(UserError, match="config.mixing is on together with the loss 'contrastive'"):
        _ = Experiment(config).step


def step_metrics(devices, mixing):
    """Metrics of the first step of a small MBT."""
    config = load_config(
        "mbt_vggsound:smoke",
        {**{f"mixing.{name}": value for name, value in mixing.items()}, "optimizer.name": "sgd"},
    )
    experiment = Experiment(config, devices=devices)
    state, places = experiment.init_state()
    step = jit_train_step(experiment.step, places, experiment.mesh)
    batches = experiment.train_batches()
    batch = meshes.to_device(next(batches), experiment.mesh)
    _, metrics = step(state, batch, jax.random.key(1))
    batches.close()
    return {name: float(total) for name, (total, _) in metrics.items()}


def test_eight_devices_mix_as_one_does():
    mixing = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}
    one, eight = (step_metrics(devices, mixing) for devices in (jax.devices()[:1], jax.devices()))
    for name, value in one.items():
        np.testing.assert_allclose(eight[name], value, rtol=1e-4)
    batch = make_batch()
    mesh = meshes.make_mesh(meshes.MeshConfig(-1, 1, ((".*", "replicate"),)), jax.devices())
    mix = jax.jit(make_mix(MixingConfig(**mixing), ONLY_CLASSES))
    alone = mix(batch, jax.random.key(3))
    shared = mix(meshes.to_device(batch, mesh), jax.random.key(3))
    for name in (axes.VIDEO, axes.AUDIO, axes.OWN_SHARE):
        np.testing.assert_allclose(shared[name], alone[name], rtol=1e-6)
