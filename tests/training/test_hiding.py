"""What the reconstruction terms hide: the model's grid, the strategy, and each clip by itself."""

import chex
import jax
import numpy as np
import pytest

from avt_jax import axes
from avt_jax.audio.activity import ActivityConfig
from avt_jax.audio.masking import MaskingConfig
from avt_jax.errors import UserError
from avt_jax.models.encoders.ast import ASTConfig, patch_grid
from avt_jax.models.inputs import InputSpec
from avt_jax.training.hiding import make_hide

# 5 s of 80 mel bins: 5 rows x 31 columns of patches.
FRAMES, BINS = 500, 80
ROWS, COLUMNS = 5, 31
SPEC = InputSpec(num_frames=8, frame_size_px=48, fbank_frames=FRAMES, mel_bins=BINS)
KEY = jax.random.key(0)
ONE_ACTIVITY = (192, 320)  # frames; columns 12 to 19


class Audio:
    """The part of AST that hiding asks: its grid."""

    def __init__(self, stride=16):
        self.config = ASTConfig(dim=8, depth=1, num_heads=1, stride=stride)

    def token_grid(self, shape):
        return patch_grid(shape[1], shape[2], self.config)


class Video:
    def __init__(self, grid=(4, 3, 3)):
        self.grid = grid

    def token_grid(self, shape):
        return self.grid


class Model:
    def __init__(self, audio=None, video=None):
        self.audio_encoder, self.video_encoder = audio or Audio(), video or Video()


def hide(modalities=("audio", "video"), model=None, **masking):
    return make_hide(model or Model(), modalities, MaskingConfig(**masking), ActivityConfig(), SPEC)


def spectrogram(*spans, background=-9.0, seed=0):
    """[s, f]: quiet noise, and far louder noise in the spans."""
    fbank_sf = np.random.default_rng(seed).normal(background, 0.5, (FRAMES, BINS))
    for first, last in spans:
        fbank_sf[first:last] += 6.0
    return fbank_sf.astype(np.float32)


def batch(*fbanks, video=None):
    number = len(fbanks)
    video = np.zeros((number, 8, 48, 48, 3), np.uint8) if video is None else video
    return {axes.AUDIO: np.stack(fbanks), axes.VIDEO: video}


def of_rows_and_columns(masked_bm):
    """[b, rows, columns]: AST orders its tokens frequency-major."""
    return np.asarray(masked_bm).reshape(-1, ROWS, COLUMNS)


def columns_over(first, last):
    """Columns whose 16 frames hold one of the frames first .. last - 1."""
    starts = 16 * np.arange(COLUMNS)
    return (starts < last) & (starts + 16 > first)


@pytest.mark.parametrize("wanted", [("audio",), ("video",), ("video", "audio"), ()])
def test_only_what_is_asked_for(wanted):
    assert set(hide(wanted)) == set(wanted)


def test_the_one_activity_is_hidden_in_every_row():
    """Twice as wide as high, so that a transposed grid would show."""
    found = hide(strategy="activity", ratio=0.5)["audio"]
    masked_bm, fallback_b = found(batch(spectrogram(ONE_ACTIVITY)), KEY)
    assert masked_bm.shape == (1, ROWS * COLUMNS) and masked_bm.dtype == bool
    assert fallback_b.tolist() == [False]
    masked = of_rows_and_columns(masked_bm)[0]
    assert (masked == masked[:1]).all(), "an activity is hidden over all frequencies"
    # The detector may be off by a few frames at either end: a column there may or may not be hit.
    inner, outer = columns_over(192 + 6, 320 - 6), columns_over(192 - 16, 320 + 16)
    assert masked[0, inner].all() and not masked[0, ~outer].any()


def test_other_activities_stay():
    """Of three activities, what the ratio allows; the rest is seen in full."""
    spans = [(64, 128), (208, 272), (352, 416)]
    found = hide(strategy="activity", ratio=0.2)["audio"]  # 6 of 31 columns: one activity
    chosen = set()
    for number in range(12):
        masked_bm, fallback_b = found(batch(spectrogram(*spans)), jax.random.key(number))
        masked = of_rows_and_columns(masked_bm)[0, 0]
        assert not fallback_b[0] and masked.any()
        # The detector may be off by a few frames at either end.
        parts = [masked[columns_over(first + 6, last - 6)] for first, last in spans]
        hit = [part.any() for part in parts]
        assert sum(hit) == 1 and parts[hit.index(True)].all(), "one activity, as a whole"
        chosen.add(hit.index(True))
    assert chosen == {0, 1, 2}


def test_nothing_sounds_so_a_span_is_hidden_and_said_to_be_one():
    found = hide(strategy="activity", ratio=0.5)["audio"]
    masked_bm, fallback_b = found(batch(spectrogram(), spectrogram(ONE_ACTIVITY)), KEY)
    assert fallback_b.tolist() == [True, False]
    hidden = np.flatnonzero(of_rows_and_columns(masked_bm)[0, 0])
    assert len(hidden) == 15 and hidden[-1] - hidden[0] == 14, "15 of 31 columns in a row"


def test_strategy_and_ratio_are_those_of_the_config():
    def share(**masking):
        masked_bm, fallback_b = hide(**masking)["audio"](batch(spectrogram(ONE_ACTIVITY)), KEY)
        assert not fallback_b.any()
        return of_rows_and_columns(masked_bm)[0]

    low, high = share(strategy="random", ratio=0.2), share(strategy="random", ratio=0.8)
    assert low.sum() == 31 and high.sum() == 124  # of 155 patches
    assert not (high == high[:1]).all(), "patches by themselves"
    bands = share(strategy="frequency", ratio=0.4, band_bins=16)
    assert (bands == bands[:, :1]).all() and bands[:, 0].sum() == 2
    chunks = share(strategy="time", ratio=0.4, chunk_sec=0.32)
    assert (chunks == chunks[:1]).all() and 0 < chunks[0].sum() <= 12


def test_the_activity_config_is_heeded():
    strict = make_hide(
        Model(), ["audio"], MaskingConfig(), ActivityConfig(low_db=60.0, high_db=60.0), SPEC
    )
    assert strict["audio"](batch(spectrogram(ONE_ACTIVITY)), KEY)[1].tolist() == [True]


def test_overlapping_patches():
    """Stride (10, 8): rows and columns are the encoder's, not those of 16 x 16 patches."""
    model = Model(Audio(stride=(10, 8)))
    rows, columns = (BINS - 16) // 10 + 1, (FRAMES - 16) // 8 + 1
    masked_bm, _ = hide(model=model, ratio=0.5)["audio"](batch(spectrogram(ONE_ACTIVITY)), KEY)
    masked = np.asarray(masked_bm).reshape(rows, columns)
    assert (masked == masked[:1]).all()
    starts = 8 * np.arange(columns)
    assert masked[0, (starts + 16 > 198) & (starts < 314)].all()
    assert not masked[0, (starts + 16 <= 176) | (starts >= 336)].any()


@pytest.mark.parametrize("ratio,places", [(0.75, 6), (0.4, 3), (0.01, 1), (0.99, 8)])
def test_tubes_are_hidden_at_all_times(ratio, places):
    masked_bn, fallback_b = hide(video_ratio=ratio)["video"](batch(*[spectrogram()] * 5), KEY)
    assert masked_bn.shape == (5, 36) and masked_bn.dtype == bool
    assert fallback_b.tolist() == [False] * 5
    tubes = np.asarray(masked_bn).reshape(5, 4, 9)
    assert (tubes == tubes[:, :1]).all() and (tubes[:, 0].sum(-1) == places).all()


@pytest.mark.parametrize("strategy", ["activity", "random", "time", "frequency", "time_frequency"])
def test_drawn_from_the_key_and_for_each_clip_by_itself(strategy):
    made = hide(strategy=strategy, ratio=0.3, chunk_sec=0.16)
    spans = [(64, 112), (176, 224), (288, 336), (400, 448)]
    clips = [spectrogram(*spans, seed=seed) for seed in range(4)]
    others = [clips[0], spectrogram((10, 60), seed=9), clips[2], spectrogram(seed=8)]
    for name, function in made.items():
        first, _ = function(batch(*clips), KEY)
        chex.assert_trees_all_equal(function(batch(*clips), KEY)[0], first)
        assert (np.asarray(function(batch(*clips), jax.random.key(7))[0]) != first).any(), name
        assert len({row.tobytes() for row in np.asarray(first)}) > 1, "not one mask for all"
        # A clip's mask depends on itself and its place, not on its neighbours.
        changed, _ = function(batch(*others), KEY)
        np.testing.assert_array_equal(changed[::2], first[::2])


def test_masks_of_video_do_not_depend_on_what_is_seen(rng):
    function = hide()["video"]
    video = rng.integers(0, 255, (2, 8, 48, 48, 3), dtype=np.uint8)
    seen, unseen = (
        function(batch(spectrogram(), spectrogram(), video=v), KEY)[0] for v in (video, None)
    )
    chex.assert_trees_all_equal(seen, unseen)


@pytest.mark.parametrize("grid", [(4, 1, 1), (1, 1, 1)])
def test_a_frame_of_one_patch_is_refused(grid):
    model = Model(video=Video(grid))
    with pytest.raises(UserError, match="frame_size_px is 48: that is one patch"):
        hide(model=model)
    assert set(hide(["audio"], model)) == {"audio"}, "video that is not hidden may be small"
    assert set(hide(["video"], Model(video=Video((1, 1, 2))))) == {"video"}


def test_the_clip_is_asked_for_its_grid_as_the_encoder_reads_it():
    """Frames, rows and columns in the order of the batch."""
    asked = []

    class Asking(Video):
        def token_grid(self, shape):
            asked.append(tuple(shape))
            return (4, 2, 3)

    function = hide(model=Model(video=Asking()))["video"]
    function(batch(spectrogram(), spectrogram()), KEY)
    assert asked == [(1, 8, 48, 48, 3), (2, 8, 48, 48, 3)]
