"""Activity detection on constructed sounds: the right spans, whatever is wrong with the sound.

Clips last 4 s where nothing else is needed: every other shape is another compilation.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avt_jax.audio.activity import ActivityConfig, activity_ids
from avt_jax.audio.activity_spans import analyse, detect, spans_of
from avt_jax.audio.melspec import LOG_FLOOR, fbank
from avt_jax.data.av_events.audio import KINDS, synthesize_audio
from avt_jax.errors import UserError
from avt_jax.evaluation.segments import score, summarize

RATE_HZ = 16000
CONFIG = ActivityConfig()


def times(seconds):
    return np.arange(round(seconds * RATE_HZ)) / RATE_HZ


def noise(seconds, level_db, seed=0):
    wave = np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ))
    return wave * 10 ** (level_db / 20)


def with_tones(wave, spans, *, level_db=-20.0, hz=700.0):
    """Adds a tone of a given peak level in each span."""
    time_sec = np.arange(len(wave)) / RATE_HZ
    tone = 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * time_sec)
    for onset_sec, offset_sec in spans:
        inside = (time_sec >= onset_sec) & (time_sec < offset_sec)
        wave = wave + tone * inside
    return wave


def detected(wave, config=CONFIG):
    return detect(fbank(np.clip(wave, -1, 1)), config)


def assert_spans(found, expected, tolerance_sec=0.03):
    assert len(found) == len(expected), f"{found} instead of {expected}"
    if expected:
        np.testing.assert_allclose(found, expected, atol=tolerance_sec)


SPANS = [(0.6, 1.1), (1.5, 2.4), (3.0, 3.3)]


@pytest.mark.parametrize("level_db", [-20.0, -45.0])
def test_tones_over_noise(level_db):
    assert_spans(detected(with_tones(noise(4, level_db - 20), SPANS, level_db=level_db)), SPANS)


def test_steady_hum_is_background_however_loud():
    time_sec = times(4)
    hum = sum(0.1 * 0.8**n * np.sin(2 * np.pi * 50 * n * time_sec) for n in range(1, 9))
    background = hum + noise(4, -60)
    assert detected(background) == []
    # 24 dB softer than the hum, in a band of its own.
    assert_spans(detected(with_tones(background, SPANS, level_db=-42, hz=2000.0)), SPANS)


@pytest.mark.parametrize("step_db", [20.0, -20.0])
def test_level_change_within_the_clip(step_db):
    spans = [(0.5, 1.0), (2.7, 3.3)]
    wave = with_tones(noise(4, -50), spans, level_db=-30)
    gain = np.where(times(4) < 2.0, 1.0, 10 ** (step_db / 20))
    assert_spans(detected(wave * gain), spans)


@pytest.mark.parametrize("gain_db", [-30.0, 20.0])
def test_the_level_of_the_whole_clip_does_not_matter(gain_db):
    wave = with_tones(noise(4, -50), SPANS, level_db=-25)
    louder = detected(wave * 10 ** (gain_db / 20))
    assert_spans(louder, detected(wave), tolerance_sec=0.011)


def test_slow_fade_in_and_out():
    time_sec = times(4)
    gain_db = np.interp(time_sec, [0.5, 1.5, 2.5, 3.5], [-50, -10, -10, -50])
    wave = 10 ** (gain_db / 20) * np.sin(2 * np.pi * 500 * time_sec)
    wave *= (time_sec > 0.5) & (time_sec < 3.5)
    # The tone stands out of the noise before it is as loud as all of it.
    [(onset_sec, offset_sec)] = detected(wave + noise(4, -40))
    assert 0.5 < onset_sec < 1.1 and 2.9 < offset_sec < 3.5


def test_a_single_click_is_no_activity_but_a_train_is_one():
    click = np.zeros(4 * RATE_HZ)
    click[2 * RATE_HZ : 2 * RATE_HZ + 32] = 0.8
    assert detected(click + noise(4, -60)) == []
    train = np.zeros(4 * RATE_HZ)
    for at_sec in np.arange(1.0, 2.01, 0.08):
        train[round(at_sec * RATE_HZ) :][:64] = 0.3
    assert_spans(detected(train + noise(4, -60)), [(1.0, 1.964)])


def test_overlapping_sounds_are_one_activity():
    wave = with_tones(noise(4, -55), [(1.0, 2.0)], hz=400.0)
    wave = with_tones(wave, [(1.6, 2.6)], hz=2500.0)
    assert_spans(detected(wave), [(1.0, 2.6)])


def test_short_gaps_are_merged_and_longer_ones_kept():
    apart = [(1.0, 1.5), (1.75, 2.3)]
    assert_spans(detected(with_tones(noise(4, -50), apart)), apart)
    close = [(1.0, 1.5), (1.56, 2.3)]
    assert_spans(detected(with_tones(noise(4, -50), close)), [(1.0, 2.3)])


def test_near_silence_and_digital_silence():
    assert detected(np.zeros(4 * RATE_HZ)) == []
    assert detected(noise(4, -85)) == []
    assert_spans(detected(with_tones(np.zeros(4 * RATE_HZ), SPANS)), SPANS)
    assert_spans(detected(with_tones(noise(4, -85), SPANS, level_db=-60)), SPANS)


def test_noise_that_begins_after_digital_silence():
    wave = noise(4, -60)
    wave[: 2 * RATE_HZ] = 0
    assert_spans(detected(with_tones(wave, [(0.8, 1.2), (3.0, 3.5)])), [(0.8, 1.2), (3.0, 3.5)])


def test_clipping():
    wave = with_tones(noise(4, -30), SPANS, level_db=20.0, hz=300.0)
    assert np.mean(np.abs(wave) > 1) > 0.3
    assert_spans(detected(wave), SPANS)


def test_all_active_clips():
    # A sound as long as the clip cannot be told from a background; one with pauses can.
    assert detected(noise(4, -20)) == []
    assert detected(with_tones(noise(4, -60), [(0, 4)])) == []
    phrases = [(0.0, 1.0), (1.2, 2.2), (2.4, 3.0), (3.2, 4.0)]
    assert_spans(detected(with_tones(noise(4, -60), phrases)), phrases, tolerance_sec=0.04)


def test_an_activity_of_up_to_the_longest_length():
    config = dataclasses.replace(CONFIG, max_activity_sec=1.5, max_edge_activity_sec=1.0)
    wave = noise(4, -50)
    assert_spans(detected(with_tones(wave, [(1.5, 2.7)]), config), [(1.5, 2.7)])
    assert detected(with_tones(wave, [(1.2, 3.0)]), config) == []
    assert_spans(detected(with_tones(wave, [(1.2, 3.0)])), [(1.2, 3.0)])


def test_an_activity_at_the_clips_edges():
    spans = [(0.0, 0.5), (3.4, 4.0)]
    assert_spans(detected(with_tones(noise(4, -50), spans)), spans, tolerance_sec=0.04)


def test_padding_takes_no_part():
    rows_sf = fbank(with_tones(noise(2, -50), [(0.5, 1.0), (1.6, 2.0)]))
    padded_sf = np.concatenate([rows_sf, np.zeros((200, 128), np.float32)])
    ids_s = analyse(padded_sf, CONFIG).ids
    assert not ids_s[len(rows_sf) :].any() and ids_s[len(rows_sf) - 1] == 2
    assert_spans(spans_of(ids_s), [(0.5, 1.0), (1.6, 2.0)])
    # Were it taken for sound or for silence, the floors would be others.
    np.testing.assert_array_equal(ids_s[: len(rows_sf)], analyse(rows_sf, CONFIG).ids)
    assert detect(np.zeros((398, 128)), CONFIG) == []


def test_missing_audio():
    for value in (np.float32(LOG_FLOOR), np.float16(LOG_FLOOR)):
        assert detect(np.full((398, 128), value), CONFIG) == []
    assert detect(np.zeros((0, 128), np.float32), CONFIG) == []


def test_erased_bands_and_times_are_left_out():
    rows_sf = fbank(with_tones(noise(4, -50), SPANS))
    erased_sf = rows_sf.copy()
    erased_sf[:, 90:120] = 0.0
    erased_sf[190:210] = 0.0
    found = detect(erased_sf, CONFIG)
    assert_spans(found, [(0.6, 1.1), (1.5, 1.9), (2.1, 2.4), (3.0, 3.3)])


@pytest.mark.parametrize(("num_frames", "num_bins"), [(1, 1), (7, 20), (398, 128)])
def test_any_size_and_any_values_stay_finite(num_frames, num_bins):
    rng = np.random.default_rng(num_frames)
    wild_bsf = rng.normal(-8, 30, (3, num_frames, num_bins)).astype(np.float32)
    wild_bsf[1] = 1e30
    wild_bsf[2, ::2] = np.nan
    for rows_sf in wild_bsf:
        seen = analyse(rows_sf, CONFIG)
        assert all(np.isfinite(values).all() for values in seen)
        assert seen.ids.shape == (num_frames,) and seen.ids.min() >= 0


def test_numbers_rise_by_one_with_time():
    ids_s = analyse(fbank(with_tones(noise(4, -50), SPANS)), CONFIG).ids
    assert [n for n in dict.fromkeys(ids_s.tolist()) if n] == [1, 2, 3]
    assert spans_of(ids_s) == detect(fbank(with_tones(noise(4, -50), SPANS)), CONFIG)


def test_times_of_frames():
    ids_s = np.array([1, 1, 0, 0, 2, 2, 0, 3])
    assert spans_of(ids_s) == [(0.0, 0.0275), (0.0475, 0.0675), (0.0775, 0.095)]
    assert spans_of(np.zeros(0, int)) == [] and spans_of(np.ones(3, int)) == [(0.0, 0.045)]


def av_events(number, **options):
    for seed in range(number):
        kind = KINDS[seed % 4]
        waveform, events = synthesize_audio(
            kind, np.random.default_rng(seed), clip_sec=4.0, sample_rate_hz=RATE_HZ, **options
        )
        yield fbank(waveform), events


@pytest.mark.parametrize(("snr_db", "least_f1"), [(20.0, 0.95), (5.0, 0.9)])
def test_true_times_of_av_events(snr_db, least_f1):
    scores = [
        score(detect(rows_sf, CONFIG), events, duration_sec=4.0)
        for rows_sf, events in av_events(24, snr_db=snr_db)
    ]
    summary = summarize(scores)
    assert summary["frame_f1"] >= least_f1
    assert summary["onset_error_ms_median"] <= 30


def test_device_equals_host():
    """One compiled batch, also inside another jitted function, and one clip after the other."""
    rng = np.random.default_rng(0)
    clips = [rows_sf for rows_sf, _ in av_events(60)]
    clips += [rng.normal(-8, 3, (398, 128)).astype(np.float32) for _ in range(20)]
    clips += [np.cumsum(rng.normal(0, 0.5, (398, 128)), axis=0).astype(np.float32) - 9] * 20
    batch_bsf = np.stack(clips)
    inside = jax.jit(lambda fbank_bsf: activity_ids(fbank_bsf, CONFIG))
    ids_bs = np.asarray(inside(jnp.asarray(batch_bsf)))
    assert ids_bs.dtype == np.int32 and ids_bs.max() >= 3
    for ids_s, rows_sf in zip(ids_bs, clips, strict=True):
        assert spans_of(ids_s) == detect(rows_sf, CONFIG)


def test_the_compiled_program_does_not_call_the_host():
    text = jax.jit(lambda x: activity_ids(x, CONFIG)).lower(jnp.zeros((2, 100, 128))).as_text()
    assert "callback" not in text


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="b, s, f"):
        activity_ids(jnp.zeros((100, 128)), CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"smoothing_sec": 0.0}, "smoothing_sec is 0.0; give seconds from 0.01 to 0.5"),
        ({"edge_db": -1.0}, "edge_db is -1.0; give dB"),
        ({"high_db": "loud"}, "high_db"),
        ({"low_db": 5.0}, "low_db is 5.0; give at most high_db, 3"),
        ({"rise_db": float("nan")}, "rise_db"),
        ({"min_gap_sec": True}, "min_gap_sec"),
        ({"max_edge_activity_sec": 6.0}, "at most max_activity_sec"),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(UserError, match=rf"config\.activity\..*{message}|{message}"):
        ActivityConfig(**change)
