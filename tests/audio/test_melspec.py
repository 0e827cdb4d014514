"""The log-mel filter bank against Kaldi's conventions and its edge cases."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from avt_jax.audio import melspec

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "fbank_a.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return dict(arrays)


def test_equals_the_float32_reference(golden):
    want = golden["fbank/chirp"]
    got = melspec.fbank(golden["wav/chirp"])
    assert got.dtype == np.float32
    assert got.shape == want.shape == (198, 128)
    np.testing.assert_allclose(got, want, atol=2e-2, rtol=0)
    # The reference's FFT is float32: its rounding is a fixed fraction of a frame's loudest bin, so
    # it shows where energy is near the floor (up to 9e-3) and vanishes above it. At energies 150
    # times the floor's (log + 5) the reference itself is exact to 1e-3.
    above = want > melspec.LOG_FLOOR + 5.0
    assert above.sum() > 4000
    np.testing.assert_allclose(got[above], want[above], atol=1e-3, rtol=0)


def test_equals_the_float64_reference_everywhere(golden):
    # Free of the float32 FFT's noise every bin agrees; the rest is the reference's float32 filters.
    got = melspec.fbank(golden["wav/chirp"])[::4]
    np.testing.assert_allclose(got, golden["fbank_f64/chirp_every_4"], atol=2e-4, rtol=0)


def test_window_and_filters_equal_the_reference(golden):
    np.testing.assert_allclose(melspec.hann_window(400), golden["window"], atol=1e-6)
    # The reference computes mel values around 2800 in float32 and divides their differences by
    # widths around 20: 2e-5 is its rounding.
    filters = melspec.mel_filters(128, 512, 16000)
    np.testing.assert_allclose(filters[:, :256], golden["mel_banks"], atol=5e-5)
    assert not filters[:, 256].any()
    assert not filters[3].any()


@pytest.mark.parametrize(
    ("num_samples", "num_frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (64000, 398)]
)
def test_number_of_frames(num_samples, num_frames):
    assert melspec.num_fbank_frames(num_samples) == num_frames
    assert melspec.fbank(np.zeros(num_samples, np.float32)).shape == (num_frames, 128)


def test_silence_is_the_floor():
    got = melspec.fbank(np.zeros(1600, np.float32))
    np.testing.assert_array_equal(got, np.float32(melspec.LOG_FLOOR))
    # A constant is silence too: the mean is removed before anything else.
    np.testing.assert_array_equal(melspec.fbank(np.full(1600, 0.25, np.float32)), got)


def test_a_pure_tone_peaks_in_the_filter_around_it():
    time_sec = np.arange(16000) / 16000
    got = melspec.fbank(0.5 * np.sin(2 * np.pi * 1000.0 * time_sec))
    edges_mel = np.linspace(melspec.hz_to_mel(20.0), melspec.hz_to_mel(8000.0), 130)
    nearest_bin = np.argmin(np.abs(edges_mel[1:-1] - melspec.hz_to_mel(1000.0)))
    assert set(got.argmax(axis=1)) == {nearest_bin}


def test_rows_start_ten_milliseconds_apart():
    # A click at 0.5 s lies in the windows that start in (0.475, 0.5] s, rows 48 to 50.
    waveform = np.zeros(16000, np.float32)
    waveform[8000] = 0.5
    loud_rows = np.flatnonzero(melspec.fbank(waveform)[:, 60:].max(axis=1) > -6.0)
    assert 0 < len(loud_rows) <= 3
    assert set(loud_rows) <= {48, 49, 50}


def test_long_waveforms_are_cut_into_blocks_without_seams(monkeypatch):
    waveform = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1
    whole = melspec.fbank(waveform)
    monkeypatch.setattr(melspec, "_BLOCK_FRAMES", 7)
    # Not bit-equal: the matrix product may sum in another order for another number of rows.
    np.testing.assert_allclose(melspec.fbank(waveform), whole, atol=1e-5, rtol=0)


def test_caller_keeps_its_waveform():
    waveform = np.linspace(0, 1, 800, dtype=np.float32)
    before = waveform.copy()
    melspec.fbank(waveform)
    np.testing.assert_array_equal(waveform, before)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros((2, 800)), "mix to mono"),
        (np.full(800, np.nan), "not finite"),
    ],
)
def test_wrong_waveforms_are_named(waveform, message):
    with pytest.raises(ValueError, match=message):
        melspec.fbank(waveform)
