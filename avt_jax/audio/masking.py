"""Which spectrogram patches to hide: five strategies behind one interface, and tubes for video.

Everything is decided per clip, with the step's key folded with the clip's place in the batch, and
has a fixed shape: a batch split over devices gets the masks it gets on one.

Source: arXiv 2401.04154 (AVT) for hiding whole activities; arXiv 2207.06405 (Audio-MAE) for the
strategies it is compared with; arXiv 2203.12602 (VideoMAE) for tubes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from avt_jax.audio.activity import ActivityConfig, activity_ids
from avt_jax.audio.mask_units import choose_units, chunks, most_of, random_span, windows
from avt_jax.audio.melspec import HOP_SEC
from avt_jax.settings import Block, setting

_MAX_CHUNK_SEC = 600.0
_MAX_BAND_BINS = 4096


@dataclass(frozen=True)
class MaskingConfig(Block, where="config.masking"):
    """The config block `masking`: what the reconstruction terms hide."""

    strategy: str = setting(
        "activity",
        "what is hidden of the sound: whole activities, single patches (random), chunks (time), "
        "bands (frequency) or bands and chunks (time_frequency)",
        choices=lambda: STRATEGIES,
    )
    ratio: float = setting(
        0.5,
        "most that may be hidden, as a share of the clip's patches; at least one unit (activity, "
        "patch, chunk, band) is hidden, whatever its size",
        above=0,
        below=1,
    )
    chunk_sec: float = setting(
        0.32,
        'length of a chunk for "time" and "time_frequency", in seconds',
        at_least=HOP_SEC,
        at_most=_MAX_CHUNK_SEC,
    )
    band_bins: int = setting(
        16,
        'height of a band for "frequency" and "time_frequency", in mel bins',
        at_least=1,
        at_most=_MAX_BAND_BINS,
    )
    video_ratio: float = setting(
        0.75, "share of a video's tubes that is hidden; at least one is", above=0, below=1
    )
    shared_pass: bool = setting(
        False, "hide in the pass that also classifies, instead of in a pass of its own"
    )


@dataclass(frozen=True)
class PatchGrid:
    """Where the patches of a spectrogram lie.

    Attributes:
      frequency: rows of patches.
      time: columns of patches.
      frequency_stride: mel bins from one row to the next.
      time_stride: frames from one column to the next; below `size` the columns overlap.
      size: mel bins and frames of a patch.
    """

    frequency: int
    time: int
    frequency_stride: int
    time_stride: int
    size: int = 16

    def __post_init__(self) -> None:
        sizes = (self.frequency, self.time, self.frequency_stride, self.time_stride, self.size)
        if min(sizes) < 1:
            raise ValueError(f"every size of a PatchGrid is 1 or more, got {self}")

    @property
    def num_frames(self) -> int:
        """Frames that the columns reach; later ones are in no patch."""
        return (self.time - 1) * self.time_stride + self.size

    @property
    def num_bins(self) -> int:
        """Mel bins that the rows reach."""
        return (self.frequency - 1) * self.frequency_stride + self.size


def _columns(values_s: jax.Array, grid: PatchGrid) -> jax.Array:
    """[s] to [time, size]: what each patch column covers."""
    return values_s[windows(grid.time, grid.time_stride, grid.size)]


# One clip: (key, ids_s, clip_s, *, grid, config) -> (masked [frequency, time] bool, fallback bool).
# ids_s is None for strategies that do not look at activities.
_Hidden = tuple[jax.Array, jax.Array]


def _activity(
    key: jax.Array, ids_s: jax.Array, clip_s: jax.Array, *, grid: PatchGrid, ratio: float
) -> _Hidden:
    choose_key, span_key = jax.random.split(key)
    allowed_c = _columns(clip_s, grid).any(-1)
    most = most_of(ratio, grid.time)[allowed_c.sum()]
    ids_s = jnp.where(clip_s, ids_s, 0)
    num_ids = ids_s.shape[0]
    chosen_c = choose_units(choose_key, _columns(ids_s, grid), num_ids, allowed_c, most)
    nothing, everything = ~chosen_c.any(), ((ids_s > 0) | ~clip_s).all()
    fallback = nothing | everything | (chosen_c == allowed_c).all()
    hidden_c = jnp.where(fallback, random_span(span_key, allowed_c, most), chosen_c)
    return jnp.broadcast_to(hidden_c, (grid.frequency, grid.time)), fallback


def _activity_strategy(
    key: jax.Array,
    ids_s: jax.Array | None,
    clip_s: jax.Array,
    *,
    grid: PatchGrid,
    config: MaskingConfig,
) -> _Hidden:
    assert ids_s is not None, "this strategy is given ids"
    return _activity(key, ids_s, clip_s, grid=grid, ratio=config.ratio)


def _random_strategy(
    key: jax.Array,
    ids_s: jax.Array | None,
    clip_s: jax.Array,
    *,
    grid: PatchGrid,
    config: MaskingConfig,
) -> _Hidden:
    shape, number = (grid.frequency, grid.time), grid.frequency * grid.time
    allowed_m = jnp.broadcast_to(_columns(clip_s, grid).any(-1), shape).reshape(-1)
    most = most_of(config.ratio, number)[allowed_m.sum()]
    single = jnp.arange(1, number + 1)[:, None]
    hidden_m = choose_units(key, single, number, allowed_m, most)
    return hidden_m.reshape(shape), jnp.bool_(False)


def _chosen_chunks(
    key: jax.Array,
    allowed_c: jax.Array,
    most: jax.Array,
    *,
    grid: PatchGrid,
    config: MaskingConfig,
    at_least_one: bool,
) -> jax.Array:
    phase_key, choose_key = jax.random.split(key)
    width = max(1, round(config.chunk_sec / HOP_SEC))
    ids_s = chunks(phase_key, grid.num_frames, grid.time_stride, width)
    ids_cw = _columns(ids_s, grid)
    return choose_units(
        choose_key, ids_cw, grid.num_frames + 1, allowed_c, most, at_least_one=at_least_one
    )


def _chosen_bands(
    key: jax.Array, ratio: float, *, grid: PatchGrid, config: MaskingConfig
) -> jax.Array:
    phase_key, choose_key = jax.random.split(key)
    ids_f = chunks(phase_key, grid.num_bins, grid.frequency_stride, config.band_bins)
    ids_rw = ids_f[windows(grid.frequency, grid.frequency_stride, grid.size)]
    everywhere = jnp.ones(grid.frequency, bool)
    most = most_of(ratio, grid.frequency)[grid.frequency]
    return choose_units(choose_key, ids_rw, grid.num_bins + 1, everywhere, most)


def _time_strategy(
    key: jax.Array,
    ids_s: jax.Array | None,
    clip_s: jax.Array,
    *,
    grid: PatchGrid,
    config: MaskingConfig,
) -> _Hidden:
    allowed_c = _columns(clip_s, grid).any(-1)
    most = most_of(config.ratio, grid.time)[allowed_c.sum()]
    hidden_c = _chosen_chunks(key, allowed_c, most, grid=grid, config=config, at_least_one=True)
    return jnp.broadcast_to(hidden_c, (grid.frequency, grid.time)), jnp.bool_(False)


def _frequency_strategy(
    key: jax.Array,
    ids_s: jax.Array | None,
    clip_s: jax.Array,
    *,
    grid: PatchGrid,
    config: MaskingConfig,
) -> _Hidden:
    allowed_c = _columns(clip_s, grid).any(-1)
    hidden_r = _chosen_bands(key, config.ratio, grid=grid, config=config)
    return hidden_r[:, None] & allowed_c, jnp.bool_(False)


def _time_frequency_strategy(
    key: jax.Array,
    ids_s: jax.Array | None,
    clip_s: jax.Array,
    *,
    grid: PatchGrid,
    config: MaskingConfig,
) -> _Hidden:
    band_key, chunk_key = jax.random.split(key)
    allowed_c = _columns(clip_s, grid).any(-1)
    rows, columns = grid.frequency, allowed_c.sum()
    # Equal shares of rows and columns whose union is `ratio`; what the bands leave of it, being
    # whole, goes to the chunks.
    share = 1 - math.sqrt(1 - config.ratio)
    hidden_r = _chosen_bands(band_key, share, grid=grid, config=config)
    hidden_rows = hidden_r.sum()
    left = most_of(config.ratio, rows * grid.time)[rows * columns] - hidden_rows * columns
    most = jnp.maximum(left, 0) // jnp.maximum(rows - hidden_rows, 1)
    hidden_c = _chosen_chunks(
        chunk_key, allowed_c, most, grid=grid, config=config, at_least_one=False
    )
    return (hidden_r[:, None] | hidden_c) & allowed_c, jnp.bool_(False)


STRATEGIES: dict[str, Callable[..., _Hidden]] = {
    "activity": _activity_strategy,
    "random": _random_strategy,
    "time": _time_strategy,
    "frequency": _frequency_strategy,
    "time_frequency": _time_frequency_strategy,
}
"""Name -> function of one clip: (key, ids_s or None, clip_s, *, grid, config) -> (masked
[frequency, time] bool, fallback bool). Only "activity" is given ids."""


def _per_clip(
    function: Callable[..., _Hidden], key: jax.Array, *values: jax.Array | None
) -> _Hidden:
    """Runs a function of one clip on all, each with its own key; patches become one axis."""
    number = next(value for value in values if value is not None).shape[0]
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(number))
    axes = (0, *(None if value is None else 0 for value in values))
    masked, fallback_b = jax.vmap(function, axes)(keys, *values)
    return masked.reshape(number, -1), fallback_b


def _check_size(num_frames: int, grid: PatchGrid) -> None:
    if num_frames < grid.num_frames:
        raise ValueError(
            f"the patches of {grid} reach over {grid.num_frames} frames, the spectrogram has "
            f"{num_frames}; give the grid of the model's audio encoder for this size"
        )


@functools.partial(jax.jit, static_argnames=("grid", "ratio"))
def hide_activities(
    ids_bs: jax.Array,
    key: jax.Array,
    *,
    grid: PatchGrid,
    ratio: float,
    clip_bs: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Hides random whole activities of every clip.

    They are taken in random order until the next one would hide more than `ratio` of the clip's
    patch columns; the first is taken whatever its length. A column is hidden when any frame that it
    covers belongs to a hidden activity. Where there is no activity, where every frame of the clip
    is active, or where no column of the clip would stay visible, one random span of columns of the
    length that `ratio` allows is hidden instead.

    Args:
      ids_bs: [b, s] int32 activity of every frame, 0 = none, none above s.
      key: PRNG key.
      grid: of the spectrogram's patches.
      ratio: above 0, below 1; rounded down to whole columns, at least one.
      clip_bs: [b, s] bool, True = frame of the clip; None = all are. A column with no frame of the
        clip is padding: never hidden, and not part of what `ratio` is measured on.

    Returns:
      (masked_bm, fallback_b): bool [b, m], True = hidden, frequency-major; bool [b], True where a
      random span was hidden.

    Raises:
      ValueError: the grid reaches over more frames than there are.
    """
    _check_size(ids_bs.shape[1], grid)
    clip_bs = jnp.ones(ids_bs.shape, bool) if clip_bs is None else clip_bs
    return _per_clip(functools.partial(_activity, grid=grid, ratio=ratio), key, ids_bs, clip_bs)


@functools.partial(jax.jit, static_argnames=("grid", "config", "activity"))
def hide_audio(
    fbank_bsf: jax.Array,
    key: jax.Array,
    *,
    grid: PatchGrid,
    config: MaskingConfig,
    activity: ActivityConfig,
) -> tuple[jax.Array, jax.Array]:
    """Chooses the patches to hide of every clip's spectrogram.

    Frames of exactly 0.0 in all bins are padding, or were erased by augmentation: columns of
    nothing else are never hidden and not part of what the ratio is measured on.

    Args:
      fbank_bsf: [b, s, f] raw log-mel, not standardised.
      key: PRNG key; clip i gets the key folded with i.
      grid: of the spectrogram's patches.
      config: the config block `masking`.
      activity: the config block `activity`; only the strategy "activity" reads it.

    Returns:
      (masked_bm, fallback_b): bool [b, m], True = hidden, frequency-major as AST orders its
      patches; bool [b], True where "activity" had to hide a random span, False otherwise.

    Raises:
      ValueError: the grid reaches over more frames or bins than the spectrogram has.
    """
    _, num_frames, num_bins = fbank_bsf.shape
    _check_size(num_frames, grid)
    if num_bins < grid.num_bins:
        raise ValueError(f"the patches of {grid} reach over {grid.num_bins} bins, not {num_bins}")
    clip_bs = (fbank_bsf != 0.0).any(-1)
    ids_bs = None
    if config.strategy == "activity":
        ids_bs = activity_ids(fbank_bsf, activity)
    one_clip = functools.partial(STRATEGIES[config.strategy], grid=grid, config=config)
    return _per_clip(one_clip, key, ids_bs, clip_bs)


@functools.partial(jax.jit, static_argnames=("shape", "ratio"))
def hide_video(shape: tuple[int, int, int, int], key: jax.Array, *, ratio: float) -> jax.Array:
    """Chooses random tubes to hide: the same places at all times.

    Args:
      shape: (b, t, h, w), the grid of a video encoder's tokens.
      key: PRNG key; clip i gets the key folded with i.
      ratio: share of the h x w places, above 0, below 1; rounded down, at least one.

    Returns:
      [b, t * h * w] bool, True = hidden, row-major.

    Source: arXiv 2203.12602 (VideoMAE), sec. 3.2.
    """
    number, times, height, width = shape
    places = height * width
    single, allowed = jnp.arange(1, places + 1)[:, None], jnp.ones(places, bool)
    most = most_of(ratio, places)[places]

    def one_clip(index: jax.Array) -> jax.Array:
        return choose_units(jax.random.fold_in(key, index), single, places, allowed, most)

    hidden_bp = jax.vmap(one_clip)(jnp.arange(number))
    return jnp.broadcast_to(hidden_bp[:, None], (number, times, places)).reshape(number, -1)
