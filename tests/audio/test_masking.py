"""Masking strategies: how much is hidden, where, and the same wherever it is computed."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from masking_cases import (
    FIXED,
    KEY,
    WIDE,
    columns,
    frames,
    hide,
    hide_ids,
    keys,
    runs,
    spectrogram,
)

from avt_jax.audio.mask_units import most_of
from avt_jax.audio.masking import MaskingConfig, PatchGrid, hide_activities, hide_audio, hide_video
from avt_jax.errors import UserError


@pytest.mark.parametrize("strategy", FIXED)
def test_padding_is_never_hidden(strategy):
    fbank_bsf = spectrogram()
    fbank_bsf[0, 70:] = 0.0  # columns 0-4 remain
    fbank_bsf[1, 32:80] = 0.0  # erased by augmentation: columns 2-4
    fbank_bsf[2, 1:] = 0.0  # one frame
    fbank_bsf[3] = 0.0
    for key in keys(8):
        masked_brc = hide(fbank_bsf, strategy, key)
        assert not masked_brc[0, :, 5:].any()
        assert 1 <= masked_brc[0].sum() <= 8 * 5 // 2
        assert not masked_brc[1, :, 2:5].any()
        assert 1 <= masked_brc[1].sum() <= 8 * 7 // 2
        assert not masked_brc[2, :, 1:].any() and masked_brc[2].any()
        assert not masked_brc[3].any()


def test_a_clip_of_one_frame_and_one_of_none():
    clip_bs = np.arange(160) < np.array([[1], [0]])
    hidden_bc, fallback_b = hide_ids(np.zeros((2, 160)), clip_bs=clip_bs)
    assert columns(hidden_bc[0]) == [0] and columns(hidden_bc[1]) == []
    assert fallback_b.all()


@pytest.mark.parametrize(("ratio", "want"), [(0.5, 40), (0.29, 23), (0.001, 1)])
def test_random_hides_exactly_the_ratio(ratio, want):
    assert (hide(spectrogram(), "random", ratio=ratio).sum((1, 2)) == want).all()


def test_random_hides_every_patch_equally_often():
    often_rc = np.mean([hide(spectrogram(), "random", key).mean(0) for key in keys(100)], 0)
    assert 0.38 < often_rc.min() and often_rc.max() < 0.62  # 400 draws: 0.5 +- 0.025


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.7])
def test_counts_do_not_suffer_from_rounding(ratio):
    most = np.asarray(most_of(ratio, 1000))
    assert most[[0, 1, 2]].tolist() == [0, 1, 1]
    assert most[10::10].tolist() == [round(ratio * 10) * n for n in range(1, 101)]


@pytest.mark.parametrize("chunk_columns", [1, 3])
def test_time_hides_whole_chunks(chunk_columns):
    seen, starts = np.zeros(10, bool), set()
    for key in keys(10):
        masked_brc = hide(spectrogram(), "time", key, chunk_sec=0.16 * chunk_columns)
        assert (masked_brc == masked_brc[:, :1]).all()
        count_b = masked_brc[:, 0].sum(-1)
        assert (count_b <= 5).all() and (count_b > 5 - chunk_columns).all()
        seen |= masked_brc[:, 0].any(0)
        starts |= {columns(hidden_c)[0] for hidden_c in masked_brc[:, 0]}
    assert seen.all()
    assert {start % chunk_columns for start in starts} == set(range(chunk_columns))


def test_a_chunk_longer_than_the_ratio_is_hidden_alone():
    # Of two chunks, one cut to make the borders fall anywhere; the longer is 6 to 10 columns.
    masked_brc = np.concatenate([hide(spectrogram(), "time", k, chunk_sec=1.6) for k in keys(8)])
    count_b = masked_brc[:, 0].sum(-1)
    assert count_b.max() > 5 and count_b.min() >= 1
    assert all(runs(hidden_c) == 1 for hidden_c in masked_brc[:, 0])


def test_frequency_hides_whole_bands():
    seen = np.zeros(8, bool)
    for key in keys(10):
        masked_brc = hide(spectrogram(), "frequency", key)
        assert (masked_brc == masked_brc[:, :, :1]).all()
        assert (masked_brc[:, :, 0].sum(-1) == 4).all()
        seen |= masked_brc[:, :, 0].any(0)
    assert seen.all()


def test_bands_on_overlapping_patches():
    # Of 12 rows, row j covers bins 10 j .. 10 j + 15; 64 bins are bins 0-63 (rows 0-6) or 64-127
    # (rows 5-11) when not cut.
    grid = PatchGrid(12, 14, 10, 10)
    masked_brc = hide(spectrogram(32), "frequency", grid=grid, band_bins=64, ratio=0.1)
    found = {tuple(columns(hidden_r)) for hidden_r in masked_brc[:, :, 0]}
    assert tuple(range(7)) in found and tuple(range(5, 12)) in found


def test_time_frequency_hides_bands_and_chunks_within_the_ratio():
    for key in keys(10):
        masked_brc = hide(spectrogram(), "time_frequency", key)
        bands, chunks = masked_brc.all(2), masked_brc.all(1)
        assert (masked_brc == (bands[:, :, None] | chunks[:, None])).all()
        assert (bands.sum(-1) == 2).all()  # 1 - sqrt(0.5) of 8 rows
        # 40 patches less 20 in the bands leave 20 for columns of 6: 3, of which chunks of 2 take 2,
        # or 3 when one of them was cut.
        assert np.isin(chunks.sum(-1), (2, 3)).all()


def test_time_frequency_hides_a_band_when_no_chunk_fits():
    masked_brc = hide(spectrogram(), "time_frequency", ratio=0.01)
    assert (masked_brc.sum((1, 2)) == 10).all() and (masked_brc.all(2).sum(1) == 1).all()


IDS_BS = np.stack([np.roll(frames((3, 30), (50, 76), (90, 120)), n) for n in range(8)])


def masks_of(strategy, key, *, count=4):
    """[count, time] or [count, frequency, time]."""
    if strategy == "activity":
        return hide_activities(IDS_BS[:count], key, grid=WIDE, ratio=0.5)[0]
    return hide(spectrogram()[:count], strategy, key)


@pytest.mark.parametrize("strategy", ("activity", *FIXED))
def test_a_key_decides_everything(strategy):
    first = masks_of(strategy, KEY)
    np.testing.assert_array_equal(first, masks_of(strategy, KEY))
    assert (first != masks_of(strategy, jax.random.key(4))).any()


@pytest.mark.parametrize("strategy", ("activity", "random"))
def test_masks_need_no_compilation_and_no_certain_batch(strategy):
    with jax.disable_jit():
        eager = masks_of(strategy, KEY, count=2)
    np.testing.assert_array_equal(masks_of(strategy, KEY)[:2], eager)


@pytest.mark.parametrize("strategy", FIXED)
def test_clips_of_a_batch_have_masks_of_their_own(strategy):
    same = np.repeat(spectrogram(1), 4, 0)
    assert len({masked.tobytes() for masked in hide(same, strategy)}) > 1


@pytest.mark.parametrize("strategy", ("activity", *FIXED))
def test_eight_devices_hide_what_one_hides(strategy):
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    assert sharding.num_devices == 8
    values = IDS_BS if strategy == "activity" else spectrogram(8)

    @jax.jit
    def masks(values, key):
        if strategy == "activity":
            return hide_activities(values, key, grid=WIDE, ratio=0.5)
        config = MaskingConfig(strategy=strategy)
        return hide_audio(values, key, grid=PatchGrid(8, 10, 16, 16), config=config, activity=None)

    one, eight = masks(values, KEY), masks(jax.device_put(values, sharding), KEY)
    assert len(eight[0].sharding.device_set) == 8
    for have, want in zip(eight, one, strict=True):
        np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize(("ratio", "want"), [(0.75, 9), (0.5, 6), (0.01, 1), (0.99, 11)])
def test_tubes_are_the_same_places_at_all_times(ratio, want):
    masked_bn = np.asarray(hide_video((5, 4, 3, 4), KEY, ratio=ratio))
    assert masked_bn.dtype == bool
    masked_btp = masked_bn.reshape(5, 4, 12)
    assert (masked_btp == masked_btp[:, :1]).all()
    assert (masked_btp[:, 0].sum(-1) == want).all()


def test_tubes_differ_between_clips_and_keys():
    first = np.asarray(hide_video((4, 2, 7, 7), KEY, ratio=0.5))
    assert len({row.tobytes() for row in first}) == 4
    assert (first != np.asarray(hide_video((4, 2, 7, 7), jax.random.key(4), ratio=0.5))).any()
    np.testing.assert_array_equal(first[:2], hide_video((2, 2, 7, 7), KEY, ratio=0.5))


@pytest.mark.parametrize(
    ("field", "value", "advice"),
    [
        ("strategy", "activities", "did you mean 'activity'"),
        ("strategy", None, "give one of 'activity', 'random'"),
        ("ratio", 0.0, "above 0 and below 1"),
        ("ratio", 1, "above 0 and below 1"),
        ("ratio", math.nan, "above 0 and below 1"),
        ("ratio", "0.5", "above 0 and below 1"),
        ("video_ratio", 1.5, "above 0 and below 1"),
        ("chunk_sec", 0.001, "seconds from 0.01 to 600"),
        ("chunk_sec", math.inf, "seconds from 0.01 to 600"),
        ("band_bins", 0, "whole number from 1"),
        ("band_bins", 16.0, "whole number from 1"),
        ("band_bins", True, "whole number from 1"),
        ("shared_pass", 1, "True or False"),
    ],
)
def test_mistakes_in_the_config_name_the_field(field, value, advice):
    with pytest.raises(UserError, match=rf"config\.masking\.{field} is .*{advice}") as error:
        MaskingConfig(**{field: value})
    assert repr(value) in str(error.value)


def test_a_grid_that_does_not_fit_is_refused():
    config = MaskingConfig(strategy="random")
    with pytest.raises(ValueError, match="reach over 176 frames, the spectrogram has 160"):
        hide_audio(spectrogram(), KEY, grid=PatchGrid(8, 11, 16, 16), config=config, activity=None)
    with pytest.raises(ValueError, match="reach over 144 bins, not 128"):
        hide_audio(spectrogram(), KEY, grid=PatchGrid(9, 10, 16, 16), config=config, activity=None)
    with pytest.raises(ValueError, match="1 or more"):
        PatchGrid(8, 0, 16, 16)


def test_bfloat16_spectrograms_are_fine():
    fbank_bsf = jnp.asarray(spectrogram(), jnp.bfloat16)
    np.testing.assert_array_equal(hide(fbank_bsf, "random"), hide(spectrogram(), "random"))
