"""Masking strategies: how much is hidden, where, and the same wherever it is computed."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from avt_jax.audio.activity import ActivityConfig, activity_ids
from avt_jax.audio.mask_units import most_of
from avt_jax.audio.masking import MaskingConfig, PatchGrid, hide_activities, hide_audio, hide_video
from avt_jax.audio.melspec import LOG_FLOOR
from avt_jax.errors import UserError

# The fixed strategies look at no activities; "activity" has tests of its own.
FIXED = ("random", "time", "frequency", "time_frequency")
KEY = jax.random.key(3)
WIDE = PatchGrid(2, 10, 16, 16)
DENSE = PatchGrid(2, 10, 10, 10)


def spectrogram(num_clips=4, num_frames=160, num_bins=128, seed=0):
    """Noise, no value of it exactly 0.0."""
    values = np.random.default_rng(seed).uniform(-12, -1, (num_clips, num_frames, num_bins))
    return values.astype(np.float32)


def hide(fbank_bsf, strategy, key=KEY, grid=None, **options):
    """Masks as [b, frequency, time]."""
    grid = grid or PatchGrid(8, fbank_bsf.shape[1] // 16, 16, 16)
    config = MaskingConfig(strategy=strategy, **options)
    masked_bm, fallback_b = hide_audio(fbank_bsf, key, grid=grid, config=config, activity=None)
    assert masked_bm.dtype == fallback_b.dtype == bool
    assert masked_bm.shape == (len(fbank_bsf), grid.frequency * grid.time)
    assert not fallback_b.any()
    return np.asarray(masked_bm).reshape(-1, grid.frequency, grid.time)


def hide_ids(ids_bs, grid=WIDE, *, ratio=0.5, key=KEY, clip_bs=True):
    """Masked columns [8, time] and the fallback [8]; whole columns, whatever happens.

    Clips are repeated until there are eight, which spares most tests a compilation of their own.
    """
    ids_bs = np.atleast_2d(np.asarray(ids_bs, np.int32))
    ids_bs = np.resize(ids_bs, (8, ids_bs.shape[1]))
    clip_bs = np.resize(clip_bs, (8, np.shape(clip_bs)[1])) if np.ndim(clip_bs) else ids_bs >= 0
    masked_bm, fallback_b = hide_activities(ids_bs, key, grid=grid, ratio=ratio, clip_bs=clip_bs)
    masked = np.asarray(masked_bm).reshape(-1, grid.frequency, grid.time)
    assert (masked == masked[:, :1]).all()
    return masked[:, 0], np.asarray(fallback_b)


def frames(*spans, length=160):
    """[length] ids, one for each span [first, last)."""
    ids_s = np.zeros(length, np.int32)
    for number, (first, last) in enumerate(spans, start=1):
        ids_s[first:last] = number
    return ids_s


def columns(hidden_c):
    return np.flatnonzero(hidden_c).tolist()


def keys(count):
    return [jax.random.key(100 + i) for i in range(count)]


def draws(ids_s, count, **options):
    """Masked columns [count, time] and fallbacks of one clip under many keys."""
    drawn = [hide_ids(ids_s, key=key, **options) for key in keys(count // 8)]
    return tuple(np.concatenate(parts) for parts in zip(*drawn, strict=True))


def touched(ids_s, number, grid):
    """Columns that hold a frame of an activity, the slow way."""
    starts = range(0, grid.time * grid.time_stride, grid.time_stride)
    return {c for c, first in enumerate(starts) if number in ids_s[first : first + grid.size]}


def runs(hidden_c):
    """How many separate spans of hidden columns there are."""
    return int((np.diff(np.concatenate([[0], hidden_c.astype(int)])) == 1).sum())


# Columns and frames


@pytest.mark.parametrize(
    ("grid", "span", "want"),
    [
        (WIDE, (15, 17), [0, 1]),  # one frame in each of two columns
        (WIDE, (16, 32), [1]),  # exactly one column
        (WIDE, (31, 33), [1, 2]),
        (WIDE, (0, 1), [0]),
        (WIDE, (159, 160), [9]),
        # Stride 10: column j covers 10 j .. 10 j + 15, so frames 20-24 are in columns 1 and 2.
        (DENSE, (20, 25), [1, 2]),
        (DENSE, (26, 30), [2]),  # column 1 ends with frame 25, column 3 starts with 30
        (DENSE, (25, 31), [1, 2, 3]),
        (DENSE, (0, 10), [0]),
        (DENSE, (10, 16), [0, 1]),
    ],
)
def test_a_column_is_hidden_when_any_of_its_frames_is(grid, span, want):
    hidden_bc, fallback_b = hide_ids(frames(span), grid)
    assert columns(hidden_bc[0]) == want
    assert not fallback_b[0]


def test_the_order_of_patches_is_frequency_major():
    masked_bm, _ = hide_activities(frames((16, 32))[None], KEY, grid=WIDE, ratio=0.5)
    assert columns(masked_bm[0]) == [1, 11]


# Activities


def test_activities_are_taken_until_the_next_would_pass_the_ratio():
    ids_s = frames((0, 32), (48, 80), (96, 128))  # two columns each; 5 of 10 allowed: two of three
    pairs = {tuple(columns(hidden_c)) for hidden_c in draws(ids_s, 64)[0]}
    assert pairs == {(0, 1, 3, 4), (0, 1, 6, 7), (3, 4, 6, 7)}


def test_the_cap_may_be_reached_exactly():
    ids_s = frames((0, 48), (64, 96))  # three columns and two
    assert (hide_ids(ids_s)[0].sum(1) == 5).all()
    assert (hide_ids(ids_s, ratio=0.45)[0].sum(1) < 4).all()


def test_one_activity_is_hidden_even_beyond_the_ratio():
    hidden_bc, fallback_b = hide_ids(frames((16, 144)))
    assert columns(hidden_bc[0]) == list(range(1, 9))
    assert not fallback_b[0]


def test_each_activity_is_equally_likely():
    # 4, 3 and 2 columns, of 4 that may be hidden: whichever comes first is hidden alone.
    hidden_bc, _ = draws(frames((0, 64), (80, 128), (128, 160)), 160, ratio=0.45)
    counts = [int((hidden_bc.sum(1) == length).sum()) for length in (4, 3, 2)]
    assert sum(counts) == 160
    # 53 +- 6 for each; a prior by length, or by place, is far outside.
    assert 33 < min(counts) and max(counts) < 73


def test_activities_in_one_column_are_hidden_with_it():
    ids_s = frames((2, 4), (10, 12))
    assert columns(hide_ids(ids_s)[0][0]) == [0]


@pytest.mark.parametrize("grid", [WIDE, DENSE])
def test_random_activities_keep_the_promises(grid, rng):
    clips, ratio, cap = 64, 0.45, 4
    ids_bs = np.zeros((clips, 160), np.int32)
    for ids_s in ids_bs:
        edges = np.sort(rng.choice(100 if grid is DENSE else 160, 2 * rng.integers(1, 7), False))
        for number, (first, last) in enumerate(edges.reshape(-1, 2), start=1):
            ids_s[first:last] = number
    parts = [hide_ids(part, grid, ratio=ratio) for part in np.split(ids_bs, clips // 8)]
    hidden_bc, fallback_b = (np.concatenate(found) for found in zip(*parts, strict=True))
    beyond, stopped = 0, 0
    for ids_s, hidden_c in zip(ids_bs[~fallback_b], hidden_bc[~fallback_b], strict=True):
        hidden = set(columns(hidden_c))
        activities = [touched(ids_s, n, grid) for n in range(1, ids_s.max() + 1)]
        whole = [activity for activity in activities if activity <= hidden]
        assert set.union(*whole) == hidden  # nothing else, and no half of one
        if len(hidden) > cap:
            assert hidden in activities
            beyond += 1
        elif len(whole) < len(activities):
            assert any(len(hidden | activity) > cap for activity in activities)
            stopped += 1
    assert beyond > 3 and stopped > 20 and fallback_b.sum() < 20  # the cases were there


# Detected activities

LONG = PatchGrid(8, 25, 16, 16)


def clips_with_sounds():
    """[5, 400, 128]: two sounds, the same erased in part, silence, padding, sound everywhere."""
    fbank_bsf = np.random.default_rng(0).uniform(-12, -11, (5, 400, 128)).astype(np.float32)
    fbank_bsf[:2, 100:150] += 8  # columns 6-9, with a frame's latitude 5-9
    fbank_bsf[:2, 260:300] += 8  # columns 16-18
    fbank_bsf[1, 350:] = 0.0
    fbank_bsf[1, :, 40:70] = 0.0  # a band erased by augmentation is no sound
    fbank_bsf[2] = LOG_FLOOR
    fbank_bsf[3] = 0.0
    fbank_bsf[4] += 8
    return fbank_bsf


@pytest.fixture(scope="module")
def detected():
    """Masks [5, frequency, time] and fallbacks of `clips_with_sounds`, for eight keys."""
    options = dict(grid=LONG, config=MaskingConfig(ratio=0.25), activity=ActivityConfig())
    drawn = [hide_audio(clips_with_sounds(), key, **options) for key in keys(8)]
    return [(np.asarray(masked).reshape(5, 8, 25), np.asarray(given)) for masked, given in drawn]


def test_detected_activities_are_hidden_whole(detected):
    seen = set()
    for masked_brc, fallback_b in detected:
        assert fallback_b[:2].tolist() == [False, False]
        assert (masked_brc == masked_brc[:, :1]).all()
        for hidden_c in masked_brc[:2, 0]:
            hidden = columns(hidden_c)
            first = hidden[0] < 12
            # 25 columns, of which 6 may be hidden: one of the sounds, and little beside it.
            assert set(hidden) >= set(range(6, 10) if first else range(16, 19))
            assert set(hidden) <= set(range(5, 11) if first else range(15, 20))
            seen.add(first)
    assert seen == {True, False}


def test_silence_padding_and_steady_sound_fall_back(detected):
    for masked_brc, fallback_b in detected:
        assert fallback_b[2:].all()
        assert masked_brc[[2, 4], 0].sum(-1).tolist() == [6, 6]
        assert not masked_brc[3].any() and not masked_brc[1, :, 22:].any()


def test_detection_and_hiding_are_two_separate_steps():
    fbank_bsf = clips_with_sounds()
    config, activity = MaskingConfig(ratio=0.25), ActivityConfig()
    got = hide_audio(fbank_bsf, KEY, grid=LONG, config=config, activity=activity)
    ids_bs, clip_bs = activity_ids(fbank_bsf, activity), fbank_bsf.any(-1)
    want = hide_activities(ids_bs, KEY, grid=LONG, ratio=0.25, clip_bs=clip_bs)
    for have, expected in zip(got, want, strict=True):
        np.testing.assert_array_equal(have, expected)


# The span in place of activities


@pytest.mark.parametrize(
    "ids_s",
    [
        frames(),  # none
        frames((0, 160)),  # one without end
        frames((0, 80), (80, 160)),  # several, no frame between them
        frames((1, 159)),  # background at the ends, in no column of its own
    ],
)
def test_without_a_choice_one_span_of_the_target_length_is_hidden(ids_s):
    hidden_bc, fallback_b = draws(ids_s, 64, ratio=0.45)
    assert fallback_b.all()
    assert (hidden_bc.sum(1) == 4).all()
    assert {runs(hidden_c) for hidden_c in hidden_bc} == {1}
    assert {columns(hidden_c)[0] for hidden_c in hidden_bc} == set(range(7))


def test_activities_that_reach_no_column_do_not_count():
    ids_s = frames((163, 168), length=170)  # the last column ends at 160
    hidden_bc, fallback_b = hide_ids(ids_s)
    assert fallback_b[0] and hidden_bc[0].sum() == 5


def test_fallback_is_told_per_clip():
    _, fallback_b = hide_ids(np.stack([frames(), frames((0, 20)), frames((0, 160))]))
    assert fallback_b[:3].tolist() == [True, False, True]


# Padding


def test_the_ratio_is_measured_on_the_clip_without_its_padding():
    clip_bs = np.arange(160)[None] < 70  # columns 0-4, the last one in part
    hidden_bc, fallback_b = draws(frames(), 32, clip_bs=clip_bs)
    assert fallback_b.all() and (hidden_bc.sum(1) == 2).all() and not hidden_bc[:, 5:].any()
    # All of this clip is active, though not all of the spectrogram.
    hidden_bc, fallback_b = hide_ids(frames((0, 70)), clip_bs=clip_bs)
    assert fallback_b[0] and hidden_bc[0].sum() == 2
    # Ids in the padding are none, also in the column that the clip ends in.
    hidden_bc, _ = hide_ids(frames((16, 30), (72, 79), (100, 130)), clip_bs=clip_bs)
    assert columns(hidden_bc[0]) == [1]


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


# The other strategies


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


# Keys, batches, devices


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


# Video


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


# Configs


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
