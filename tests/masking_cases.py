"""Spectrograms, grids and activities that the tests of masking share."""

from __future__ import annotations

import jax
import numpy as np

from avt_jax.audio.masking import MaskingConfig, PatchGrid, hide_activities, hide_audio

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


LONG = PatchGrid(8, 25, 16, 16)
