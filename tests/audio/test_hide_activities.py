"""Whole activities are hidden, within the ratio, or a random span instead."""

from __future__ import annotations

import numpy as np
import pytest
from masking_cases import (
    DENSE,
    KEY,
    LONG,
    WIDE,
    columns,
    draws,
    frames,
    hide_ids,
    keys,
    runs,
    touched,
)

from avt_jax.audio.activity import ActivityConfig, activity_ids
from avt_jax.audio.masking import MaskingConfig, hide_activities, hide_audio
from avt_jax.audio.melspec import LOG_FLOOR


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
