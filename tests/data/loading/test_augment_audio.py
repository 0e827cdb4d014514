"""Masks hide whole bands and spans, no wider than allowed."""

import numpy as np
import pytest

from avt_jax.data.loading.augment_audio import MASK_VALUE, mask_spectrogram

AUDIO_SF = np.full((60, 20), -7.0, np.float32)


def masked(rng, freq=0, time=0, audio_sf=AUDIO_SF):
    out_sf = audio_sf.copy()
    mask_spectrogram(out_sf, rng, freq_mask_bins=freq, time_mask_frames=time)
    return out_sf


def test_zero_turns_masks_off(rng):
    np.testing.assert_array_equal(masked(rng), AUDIO_SF)


@pytest.mark.parametrize("axis", [0, 1], ids=["time", "frequency"])
def test_one_whole_span_of_every_width_and_place(rng, axis):
    widths, places = set(), np.zeros(AUDIO_SF.shape[axis], int)
    for _ in range(600):
        out_sf = masked(rng, time=8) if axis == 0 else masked(rng, freq=8)
        hidden = out_sf == MASK_VALUE
        line = hidden.all(axis=1 - axis)
        np.testing.assert_array_equal(hidden.any(axis=1 - axis), line)
        where = np.flatnonzero(line)
        assert not len(where) or where[-1] - where[0] + 1 == len(where)
        widths.add(len(where))
        places += line
    assert widths == set(range(9))
    assert places.min() > 0


def test_mask_wider_than_the_spectrogram_fits(rng):
    short_sf = AUDIO_SF[:5]
    hidden = [(masked(rng, time=192, audio_sf=short_sf) == MASK_VALUE).sum() for _ in range(60)]
    assert min(hidden) == 0 and max(hidden) == short_sf.size


def test_type_is_kept(rng):
    assert masked(rng, 5, 5).dtype == np.float32
