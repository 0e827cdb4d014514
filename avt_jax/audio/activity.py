"""Finds where something sounds in a clip: spans that the structured mask hides as a whole.

The steps are those of method.md, "Audio activity detection": envelope, smoothing, gradient,
adaptive floor with hysteresis, merging and dropping. docs/activity.md gives the reasons. One
implementation serves both sides: `activity_ids` inside a jitted step, and what
`activity_spans` makes of `analyse_batch` on the host.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from avt_jax.audio.melspec import HOP_SEC, LOG_FLOOR
from avt_jax.errors import UserError
from avt_jax.settings import Block, setting

# Mel bins whose power is added before a floor is sought: a single bin's noise fluctuates so much
# that its minimum says little, while one floor for all bins would let a hum hide what is above it.
_BAND_BINS = 8
# Share of the frames that is taken to be background at least, in percent.
_QUIET_PERCENT = 20
# How far beyond the usual slope a gradient must be, and the most that this may ask for.
_RIPPLE_FACTOR, _MOST_EDGE_FACTOR = 4.0, 3.0
_DB_PER_NEPER = 10.0 / math.log(10.0)
_MAX_LOG_POWER = 40.0  # far above any waveform in [-1, 1]; keeps nonsense from overflowing
_MAX_SEC, _MAX_SMOOTHING_SEC, _MAX_DB = 60.0, 0.5, 120.0


@dataclass(frozen=True)
class ActivityConfig(Block, where="config.activity"):
    """The config block `activity`: what counts as an audio activity."""

    smoothing_sec: float = setting(
        0.05,
        "standard deviation of the Gaussian that smooths the envelope, in seconds",
        at_least=HOP_SEC,
        at_most=_MAX_SMOOTHING_SEC,
    )
    edge_db: float = setting(
        3.0,
        "smallest sudden change of the envelope that proposes an onset or offset, in dB; clips "
        "whose envelope ripples ask for more",
        at_least=0,
        at_most=_MAX_DB,
    )
    high_db: float = setting(
        3.0,
        "how far above the floor a span must be to be an activity, in dB",
        at_least=0,
        at_most=_MAX_DB,
    )
    low_db: float = setting(
        2.5,
        "how far above the floor a span must be to prolong an activity, in dB; at most high_db",
        at_least=0,
        at_most=_MAX_DB,
    )
    rise_db: float = setting(
        3.0,
        "how far the floor may rise above the lowest envelope around where the background itself "
        "fluctuates, in dB",
        at_least=0,
        at_most=_MAX_DB,
    )
    silence_db: float = setting(
        6.0,
        "how far above a spectrogram's least value sound begins, in dB",
        at_least=0,
        at_most=_MAX_DB,
    )
    max_activity_sec: float = setting(
        5.0,
        "longest activity, in seconds; what lasts longer is background (a hum)",
        at_least=HOP_SEC,
        at_most=_MAX_SEC,
    )
    max_edge_activity_sec: float = setting(
        1.5,
        "the same for what touches the start or the end of the clip, where an activity cannot be "
        "told from a change of the background; at most max_activity_sec",
        at_least=HOP_SEC,
        at_most=_MAX_SEC,
    )
    min_gap_sec: float = setting(
        0.1, "activities closer than this are one, in seconds", at_least=0, at_most=_MAX_SEC
    )
    min_activity_sec: float = setting(
        0.15,
        "shorter activities are dropped (a single click), in seconds",
        at_least=0,
        at_most=_MAX_SEC,
    )

    def check(self) -> None:
        """Refuses pairs of values that contradict each other."""
        for name, most in (("low_db", "high_db"), ("max_edge_activity_sec", "max_activity_sec")):
            value, limit = getattr(self, name), getattr(self, most)
            if value > limit:
                raise UserError(
                    f"config.activity.{name} is {value!r}; give at most {most}, {limit:g}."
                )


class Analysis(NamedTuple):
    """What the detector saw in one clip, or, with a leading axis [b], in several.

    Attributes:
      envelope_db: float32 [s] >= 0, power over the bands' own floors, short dips filled.
      smoothed_db: float32 [s].
      gradient_db_per_sec: float32 [s], slope of the smoothed envelope just before each frame.
      floor_db: float32 [s], on the scale of the envelopes.
      edge_db_per_sec: float32 [], slope beyond which an onset or offset is proposed.
      ids: int32 [s], 0 = background, 1.. = activities in order of time.
    """

    envelope_db: Any
    smoothed_db: Any
    gradient_db_per_sec: Any
    floor_db: Any
    edge_db_per_sec: Any
    ids: Any


def _frames(seconds: float) -> int:
    return max(1, round(seconds / HOP_SEC))


# The functions below work on one clip; time is the first axis.
def _shift(values: jax.Array, later: int, fill: float | bool) -> jax.Array:
    """values[t + later], `fill` where that is outside."""
    rest = [(0, 0, 0)] * (values.ndim - 1)
    return jax.lax.pad(values, jnp.asarray(fill, values.dtype), [(-later, later, 0), *rest])


def _over_next(
    values: jax.Array, size: int, combine: Callable[[jax.Array, jax.Array], jax.Array], fill: float
) -> jax.Array:
    """Combines values[t] to values[t + size - 1]; in log2(size) steps, each doubling the reach."""
    size = min(size, values.shape[0])
    reach = 1
    while reach < size:
        step = min(reach, size - reach)
        values = combine(values, _shift(values, step, fill))
        reach += step
    return values


def _max_around(values: jax.Array, reach: int) -> jax.Array:
    """Largest of values[t - reach] to values[t + reach]."""
    outside = [(reach, reach)] + [(0, 0)] * (values.ndim - 1)
    padded = jnp.pad(values, outside, constant_values=-jnp.inf)
    return _over_next(padded, 2 * reach + 1, jnp.maximum, -jnp.inf)[: len(values)]


def _starts(flags_s: jax.Array) -> jax.Array:
    """Where a run of equal flags starts."""
    return (flags_s != _shift(flags_s, -1, False)) | (jnp.arange(flags_s.shape[0]) == 0)


def _runs(starts_s: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First and last frame of the run each frame is in."""
    size = starts_s.shape[0]
    place_s = jnp.arange(size)
    ends_s = _shift(starts_s, 1, True)
    first_s = jax.lax.cummax(jnp.where(starts_s, place_s, 0))
    last_s = jax.lax.cummin(jnp.where(ends_s, place_s, size - 1), reverse=True)
    return first_s, last_s


def _hysteresis(
    values_s: jax.Array, low_s: jax.Array | float, high_s: jax.Array | float
) -> jax.Array:
    """Runs of values >= low that hold a value >= high, as bool [s]."""
    candidate_s = values_s >= low_s
    first_s, last_s = _runs(_starts(candidate_s))
    seed_s = candidate_s & (values_s >= high_s)
    count_s = jnp.cumsum(seed_s)
    return candidate_s & (count_s[last_s] > count_s[first_s] - seed_s[first_s])


def _percentile(values_s: jax.Array, counted_s: jax.Array, percent: int) -> jax.Array:
    """The value that `percent` of the counted ones do not exceed; 0 when none is counted."""
    number = counted_s.sum()
    ordered_s = jnp.sort(jnp.where(counted_s, values_s, jnp.inf))
    return jnp.where(number > 0, ordered_s[(jnp.maximum(number, 1) - 1) * percent // 100], 0.0)


def _blocks(values_sk: jax.Array, valid_s: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
    """Means over two blocks of `width` valid frames, one block on each; and which hold any.

    Floors change slowly: looking for them on blocks costs a fraction.
    """
    size = valid_s.shape[0]
    weights_s = jnp.pad(valid_s.astype(values_sk.dtype), (0, -size % width))
    values_sk = jnp.pad(values_sk, ((0, -size % width), (0, 0))) * weights_s[:, None]
    sum_jk = values_sk.reshape(-1, width, values_sk.shape[1]).sum(1)
    number_j = weights_s.reshape(-1, width).sum(1)
    sum_jk = _over_next(sum_jk, 2, jnp.add, 0.0)
    number_j = _over_next(number_j, 2, jnp.add, 0.0)
    return sum_jk / jnp.maximum(number_j, 1.0)[:, None], number_j > 0


def _local_floor(
    values_sk: jax.Array, valid_s: jax.Array, config: ActivityConfig
) -> tuple[jax.Array, jax.Array]:
    """The highest level that is kept up for long: what is left when all shorter rises are cut off.

    Of all windows that hold a frame and are as long as the longest activity, the largest minimum.
    Windows from the clip's start, or to its end, may be shorter: a level that changes and stays
    changed has no second side to be compared with.

    Returns (floor_sk, rise): of every frame, 0 where not valid; how far above it the quietest
    frames of the first column are.
    """
    width = _frames(config.smoothing_sec)
    mean_jk, valid_j = _blocks(values_sk, valid_s, width)
    size = valid_j.shape[0]
    place_j = jnp.arange(size)
    first = jnp.argmax(valid_j)
    last = size - 1 - jnp.argmax(valid_j[::-1])
    mean_jk = jnp.where(valid_j[:, None], mean_jk, jnp.inf)
    edge = max(1, _frames(config.max_edge_activity_sec) // width)
    from_start_jk = jax.lax.cummin(mean_jk, axis=0)
    to_end_jk = jax.lax.cummin(mean_jk, axis=0, reverse=True)
    # Windows at the edge that would be too short are prolonged to the least length.
    head = jnp.minimum(first + edge - 1, last)
    tail = jnp.maximum(last - edge + 1, first)
    floor_jk = jnp.maximum(
        jnp.minimum(from_start_jk, from_start_jk[head]), jnp.minimum(to_end_jk, to_end_jk[tail])
    )
    length = max(1, _frames(config.max_activity_sec) // width)
    if length <= size:
        lowest_jk = _over_next(mean_jk, length, jnp.minimum, jnp.inf)
        inside_j = (place_j >= first) & (place_j + length - 1 <= last)
        lowest_jk = jnp.where(inside_j[:, None], lowest_jk, -jnp.inf)
        before_jk = _shift(lowest_jk, -(length - 1), -jnp.inf)
        floor_jk = jnp.maximum(floor_jk, _over_next(before_jk, length, jnp.maximum, -jnp.inf))
    rise = _percentile(mean_jk[:, 0] - floor_jk[:, 0], valid_j, _QUIET_PERCENT)
    # Where the background changes, blocks see it early or late: take the louder side's floor.
    floor_sk = jnp.repeat(_max_around(floor_jk, 1), width, axis=0)[: len(valid_s)]
    return jnp.where(valid_s[:, None], floor_sk, 0.0), rise


def _band_power_db(fbank_sf: jax.Array, config: ActivityConfig) -> tuple[jax.Array, jax.Array]:
    """Power of each band in dB, float32 [s, k], and which frames belong to the clip, bool [s].

    Values of exactly 0.0 are padding or were erased by augmentation: no power.
    """
    there_sf = (fbank_sf != 0.0) & jnp.isfinite(fbank_sf)
    limited_sf = jnp.clip(fbank_sf, -_MAX_LOG_POWER, _MAX_LOG_POWER)
    power_sf = jnp.where(there_sf, jnp.exp(limited_sf), 0.0)
    band_f = np.arange(fbank_sf.shape[1]) // _BAND_BINS
    bands_fk = jnp.asarray(band_f[:, None] == np.arange(band_f[-1] + 1), jnp.float32)
    power_sk = jnp.dot(power_sf, bands_fk, precision=jax.lax.Precision.HIGHEST)
    valid_s = power_sk.sum(-1) > 0.0  # any power at all is more than none
    least = _BAND_BINS * math.exp(LOG_FLOOR) * 10.0 ** (config.silence_db / 10.0)
    return _DB_PER_NEPER * jnp.log(jnp.maximum(power_sk, least)), valid_s


def _gaussian(values_s: jax.Array, valid_s: jax.Array, smoothing_sec: float) -> jax.Array:
    """Smooths over the frames that are valid; 0 elsewhere."""
    sigma = smoothing_sec / HOP_SEC
    reach = math.ceil(4 * sigma)
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    both_s2 = jnp.stack([jnp.where(valid_s, values_s, 0.0), valid_s.astype(jnp.float32)], -1)
    padded = jnp.pad(both_s2, ((reach, reach), (0, 0)))
    # One fused sum: a convolution of one channel takes several times as long on a CPU.
    size = len(values_s)
    terms = (float(w) * padded[at : at + size] for at, w in enumerate(weight / weight.sum()))
    sums_s2 = functools.reduce(operator.add, terms)
    return jnp.where(valid_s, sums_s2[:, 0] / jnp.maximum(sums_s2[:, 1], 1e-6), 0.0)


def _envelope_db(fbank_sf: jax.Array, config: ActivityConfig) -> tuple[jax.Array, jax.Array]:
    """Step 1: summed power in dB, every band measured against its own floor; and the valid frames.

    Dips shorter than the least gap are filled, so that a train of clicks is as loud as they are.
    """
    band_sk, valid_s = _band_power_db(fbank_sf, config)
    floor_sk, _ = _local_floor(band_sk, valid_s, config)
    excess_s = jnp.exp((band_sk - floor_sk) / _DB_PER_NEPER).mean(-1)
    envelope_s = jnp.maximum(_DB_PER_NEPER * jnp.log(excess_s), 0.0)
    envelope_s = jnp.where(valid_s, envelope_s, 0.0)
    width = _frames(config.min_gap_sec)
    padded_s = jnp.pad(envelope_s, (width - 1, width - 1))
    highest_s = _over_next(padded_s, width, jnp.maximum, 0.0)
    filled_s = _over_next(highest_s, width, jnp.minimum, jnp.inf)[: len(envelope_s)]
    return jnp.where(valid_s, filled_s, 0.0), valid_s


def _edges(
    smoothed_s: jax.Array, valid_s: jax.Array, config: ActivityConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Step 3: the gradient in dB/s, the threshold, and the boundaries it proposes, bool [s]."""
    counted_s = valid_s & _shift(valid_s, -1, False)
    gradient_s = jnp.where(counted_s, (smoothed_s - _shift(smoothed_s, -1, 0.0)) / HOP_SEC, 0.0)
    slope_s = jnp.abs(gradient_s)
    # What a sudden step of edge_db becomes at its steepest.
    step = config.edge_db / (math.sqrt(2.0 * math.pi) * config.smoothing_sec)
    reach = _frames(config.smoothing_sec)
    # Neighbours are nearly equal: some of them are enough for a median, and quicker to sort.
    usual = _percentile(slope_s[::reach], counted_s[::reach], 50)
    threshold = jnp.clip(_RIPPLE_FACTOR * usual, step, _MOST_EDGE_FACTOR * step)
    proposed_s = (slope_s > threshold) & (slope_s >= _max_around(slope_s, reach))
    return gradient_s, threshold, proposed_s


def _active(
    envelope_s: jax.Array,
    smoothed_s: jax.Array,
    floor_s: jax.Array,
    proposed_s: jax.Array,
    valid_s: jax.Array,
    config: ActivityConfig,
) -> jax.Array:
    """Step 4: which of the spans between boundaries are active, bool [s].

    Slow changes have no steep gradient: a switch of the hysteresis with no boundary near is one.
    """
    low_s, high_s = floor_s + config.low_db, floor_s + config.high_db
    # The smoothed envelope is above the threshold for a while before and after a loud sound, the
    # envelope itself is not.
    loud_s = _hysteresis(jnp.minimum(smoothed_s, envelope_s), low_s, high_s) & valid_s
    near_s = _max_around(proposed_s.astype(jnp.float32), _frames(config.smoothing_sec)) > 0
    switches_s = loud_s != _shift(loud_s, -1, False)
    cut_s = proposed_s | (switches_s & ~near_s) | (valid_s != _shift(valid_s, -1, False))
    first_s, last_s = _runs(cut_s | (jnp.arange(len(cut_s)) == 0))
    above_s = jnp.where(valid_s, envelope_s - floor_s, 0.0)
    total_s = jnp.cumsum(above_s)
    mean_s = (total_s[last_s] - total_s[first_s] + above_s[first_s]) / (last_s - first_s + 1)
    return _hysteresis(mean_s, config.low_db, config.high_db) & valid_s


def _tidy(active_s: jax.Array, valid_s: jax.Array, config: ActivityConfig) -> jax.Array:
    """Step 5: merges over short gaps, drops short activities, numbers the rest; int32 [s]."""
    first_s, last_s = _runs(_starts(active_s))
    short_s = last_s - first_s + 1 < _frames(config.min_gap_sec)
    between_s = (first_s > 0) & (last_s < active_s.shape[0] - 1)
    active_s = (active_s | (short_s & between_s)) & valid_s
    starts_s = _starts(active_s)
    first_s, last_s = _runs(starts_s)
    active_s &= last_s - first_s + 1 >= _frames(config.min_activity_sec)
    number_s = jnp.cumsum(starts_s & active_s).astype(jnp.int32)
    return jnp.where(active_s, number_s, 0)


def _analyse_clip(fbank_sf: jax.Array, config: ActivityConfig) -> Analysis:
    envelope_s, valid_s = _envelope_db(fbank_sf.astype(jnp.float32), config)
    smoothed_s = _gaussian(envelope_s, valid_s, config.smoothing_sec)
    gradient_s, threshold, proposed_s = _edges(smoothed_s, valid_s, config)
    floor_s1, rise = _local_floor(smoothed_s[:, None], valid_s, config)
    floor_s = floor_s1[:, 0] + jnp.clip(rise, 0.0, config.rise_db)
    active_s = _active(envelope_s, smoothed_s, floor_s, proposed_s, valid_s, config)
    ids_s = _tidy(active_s, valid_s, config)
    return Analysis(envelope_s, smoothed_s, gradient_s, floor_s, threshold, ids_s)


@functools.partial(jax.jit, static_argnums=1)
def analyse_batch(fbank_bsf: jax.Array, config: ActivityConfig) -> Analysis:
    """The curves and activities of clips [b, s, f], s >= 1, as `activity_ids` takes them."""
    return jax.vmap(functools.partial(_analyse_clip, config=config))(fbank_bsf)


def activity_ids(fbank_bsf: jax.Array, config: ActivityConfig) -> jax.Array:
    """Numbers the activities of every clip; for use inside `jit`.

    Args:
      fbank_bsf: [b, s, f] raw log-mel (natural logarithm of power, 10 ms hop), s >= 1. Rows that
        are 0.0 throughout are padding; single values of 0.0 were erased and are left out.
      config: the config block `activity`.

    Returns:
      int32 [b, s]: 0 = background or padding, 1.. = activities in order of time.

    Raises:
      ValueError: the spectrogram is not [b, s, f] with s and f >= 1.
    """
    if fbank_bsf.ndim != 3 or 0 in fbank_bsf.shape[1:]:
        raise ValueError(f"fbank must be [b, s, f] with frames and bins, got {fbank_bsf.shape}")
    return analyse_batch(fbank_bsf, config).ids
