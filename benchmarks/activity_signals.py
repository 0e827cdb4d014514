"""Signals that imitate real recordings, with known times, for benchmarks/activity.py.

They are constructed, not recorded. Each function takes a generator and returns
(waveform float64 [samples] at 16 kHz, [(onset_sec, offset_sec)]). A sound that dies away, or comes
slowly, is there while its power (over 50 ms) is at least the background's over the whole clip.
"""

from __future__ import annotations

import numpy as np

RATE_HZ = 16000
CLIP_SEC = 6.0


def colored_noise(rng, num_samples: int, tilt: float) -> np.ndarray:
    """Gaussian noise of RMS 1 whose amplitude falls with frequency ** tilt."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    bins = np.maximum(np.arange(len(spectrum)) / len(spectrum), 0.01)
    wave = np.fft.irfft(spectrum * bins**-tilt, num_samples)
    return wave / np.sqrt(np.mean(wave**2))


def _times(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * RATE_HZ)) / RATE_HZ


def _resonances(wave: np.ndarray, centers_hz, width_hz: float) -> np.ndarray:
    """Lets through what lies around some frequencies."""
    hz = np.fft.rfftfreq(len(wave), 1 / RATE_HZ)
    gain = sum(1 / (1 + ((hz - center) / width_hz) ** 2) for center in centers_hz)
    return np.fft.irfft(np.fft.rfft(wave) * gain, len(wave))


def _scaled(wave: np.ndarray, level_db: float) -> np.ndarray:
    return wave / max(np.sqrt(np.mean(wave**2)), 1e-12) * 10 ** (level_db / 20)


def _audible(sound: np.ndarray, background: np.ndarray, start: int) -> tuple[float, float]:
    """From where to where a sound that starts at a sample is as strong as the background."""
    width = round(0.05 * RATE_HZ)
    power = np.convolve(sound**2, np.full(width, 1 / width), mode="same")
    loud = np.flatnonzero(power >= np.mean(background**2))
    return (start + loud[0]) / RATE_HZ, (start + loud[-1]) / RATE_HZ


def _syllable(rng, seconds: float, pitch_hz: float) -> np.ndarray:
    """A vowel with formants, after a hiss that is there half of the time."""
    time_sec = _times(seconds)
    drift = 1 + 0.08 * np.sin(2 * np.pi * time_sec / seconds + rng.uniform(0, 6))
    phase = np.cumsum(pitch_hz * drift) / RATE_HZ
    pulses = np.diff(np.floor(phase), prepend=0.0) + 0.05 * rng.standard_normal(len(time_sec))
    formants_hz = (rng.uniform(300, 800), rng.uniform(900, 2300), rng.uniform(2400, 3200))
    wave = _scaled(_resonances(pulses, formants_hz, 90.0), 0.0)
    if rng.uniform() < 0.5:
        hiss = _resonances(rng.standard_normal(len(time_sec)), (5500.0,), 1200.0)
        share = time_sec < 0.3 * seconds
        wave = np.where(share, _scaled(hiss, -6.0), wave)
    return wave * np.sin(np.pi * np.clip(time_sec / seconds, 0, 1)) ** 0.6


def speech(rng):
    """Phrases of three to eight syllables, pauses, a soft pink background (20 to 30 dB below)."""
    num_samples = round(CLIP_SEC * RATE_HZ)
    wave, spans = np.zeros(num_samples), []
    at_sec, pitch_hz = rng.uniform(0.3, 0.8), rng.uniform(90, 230)
    while at_sec < CLIP_SEC - 1.2:
        onset_sec = at_sec
        for _ in range(int(rng.integers(3, 9))):
            seconds = rng.uniform(0.14, 0.26)
            if at_sec + seconds > CLIP_SEC - 0.3:
                break
            start = round(at_sec * RATE_HZ)
            sound = _syllable(rng, seconds, pitch_hz) * 10 ** (rng.uniform(-6, 0) / 20)
            wave[start : start + len(sound)] += sound
            at_sec += seconds + rng.uniform(0.0, 0.04)
            offset_sec = (start + len(sound)) / RATE_HZ
        spans.append((onset_sec, offset_sec))
        at_sec += rng.uniform(0.35, 0.9)
    wave += 10 ** (-rng.uniform(20, 30) / 20) * colored_noise(rng, num_samples, 0.5)
    return 0.08 * wave, spans


def footsteps(rng):
    """Thuds of 0.2 s over mains hum with harmonics, which is as loud as they are."""
    num_samples = round(CLIP_SEC * RATE_HZ)
    time_sec = _times(CLIP_SEC)
    wave = sum(
        0.7**n * np.sin(2 * np.pi * 50 * n * time_sec + rng.uniform(0, 6)) for n in range(1, 9)
    )
    hum = _scaled(wave, -3.0)
    hiss = 0.01 * colored_noise(rng, num_samples, 0.5)
    wave = hum + hiss
    spans, at_sec = [], rng.uniform(0.3, 0.7)
    while at_sec < CLIP_SEC - 0.5:
        decay_sec = rng.uniform(0.07, 0.1)
        inside_sec = _times(5 * decay_sec)
        thud = _resonances(rng.standard_normal(len(inside_sec)), (180.0, 700.0, 2500.0), 300.0)
        thud = _scaled(thud, 3.0 + rng.uniform(-3, 3)) * np.exp(-inside_sec / decay_sec)
        start = round(at_sec * RATE_HZ)
        wave[start : start + len(thud)] += thud[: num_samples - start]
        spans.append((at_sec, _audible(thud, 3 * hiss, start)[1]))
        at_sec += rng.uniform(0.55, 0.85)
    return 0.08 * wave, spans


def music(rng):
    """Plucked notes that ring out, with rests, over tape hiss 35 dB below."""
    num_samples = round(CLIP_SEC * RATE_HZ)
    hiss = 0.4 * 10 ** (-35 / 20) * colored_noise(rng, num_samples, 0.2)
    wave, spans = hiss.copy(), []
    at_sec = rng.uniform(0.2, 0.6)
    while at_sec < CLIP_SEC - 1.0:
        decay_sec = rng.uniform(0.15, 0.35)
        length_sec = decay_sec * np.log(10)
        time_sec = _times(4 * decay_sec)
        pitch_hz = 110 * 2 ** (rng.integers(0, 25) / 12)
        note = sum(
            0.6**n * np.sin(2 * np.pi * pitch_hz * n * time_sec) for n in range(1, 7)
        ) * np.exp(-time_sec / decay_sec)
        note *= np.minimum(1, time_sec / 0.005)
        start = round(at_sec * RATE_HZ)
        wave[start : start + len(note)] += note[: num_samples - start]
        spans.append((at_sec, min(_audible(note, hiss, start)[1], CLIP_SEC)))
        at_sec += length_sec + rng.uniform(0.3, 0.7)
    return 0.2 * wave, spans


def rain(rng):
    """Claps in rain: noise whose level wanders by some dB, with drops; claps 12 dB above it."""
    num_samples = round(CLIP_SEC * RATE_HZ)
    wander_db = np.interp(
        _times(CLIP_SEC), np.arange(0, CLIP_SEC + 0.5, 0.5), rng.normal(0, 1.0, 13)
    )
    wave = colored_noise(rng, num_samples, 0.15) * 10 ** (wander_db / 20)
    for start in rng.integers(0, num_samples - 200, 300):
        drop = np.exp(-np.arange(160) / 25) * np.sin(np.arange(160) * rng.uniform(0.5, 2.0))
        wave[start : start + 160] += rng.uniform(0.2, 1.0) * drop
    background = wave.copy()
    spans, at_sec = [], rng.uniform(0.3, 0.8)
    while at_sec < CLIP_SEC - 0.6:
        decay_sec = rng.uniform(0.08, 0.12)
        inside_sec = _times(5 * decay_sec)
        clap = _resonances(rng.standard_normal(len(inside_sec)), (1200.0, 2500.0), 900.0)
        clap = _scaled(clap, 18.0) * np.exp(-inside_sec / decay_sec)
        start = round(at_sec * RATE_HZ)
        wave[start : start + len(clap)] += clap[: num_samples - start]
        spans.append((at_sec, _audible(clap, background, start)[1]))
        at_sec += rng.uniform(0.7, 1.4)
    return 0.03 * wave, spans


def passing_by(rng):
    """One engine that comes and goes (a second each) in wind; see _audible."""
    num_samples = round(CLIP_SEC * RATE_HZ)
    time_sec = _times(CLIP_SEC)
    middle_sec, half_sec = rng.uniform(2.6, 3.4), rng.uniform(1.1, 1.6)
    gain_db = -20 * (np.abs(time_sec - middle_sec) / half_sec) ** 2
    phase = 2 * np.pi * np.cumsum(80 + 5 * np.tanh(middle_sec - time_sec)) / RATE_HZ
    engine = sum(0.8**n * np.sin(n * phase + rng.uniform(0, 6)) for n in range(1, 12))
    engine = _scaled(engine, 0) + 0.3 * colored_noise(rng, num_samples, 0.5)
    engine = engine * 10 ** (gain_db / 20)
    wind = 10 ** (-22 / 20) * colored_noise(rng, num_samples, 0.6)
    return 0.1 * (engine + wind), [_audible(engine, wind, 0)]


def street(rng):
    """Horns over traffic noise that grows by 12 dB during the clip."""
    num_samples = round(CLIP_SEC * RATE_HZ)
    time_sec = _times(CLIP_SEC)
    wave = colored_noise(rng, num_samples, 0.5) * 10 ** (12 * time_sec / CLIP_SEC / 20)
    spans, at_sec = [], rng.uniform(0.4, 0.9)
    while at_sec < CLIP_SEC - 1.0:
        seconds = rng.uniform(0.3, 0.8)
        inside_sec = _times(seconds)
        pitch_hz = rng.uniform(300, 500)
        horn = sum(0.8**n * np.sin(2 * np.pi * pitch_hz * n * inside_sec) for n in range(1, 9))
        horn = _scaled(horn, 15.0) * np.minimum(
            1, np.minimum(inside_sec, seconds - inside_sec) / 0.02
        )
        start = round(at_sec * RATE_HZ)
        wave[start : start + len(horn)] += horn
        spans.append((at_sec, at_sec + seconds))
        at_sec += seconds + rng.uniform(0.4, 1.0)
    return 0.02 * wave, spans


SIGNALS = {
    "speech-like phrases": speech,
    "thuds over hum": footsteps,
    "plucked notes": music,
    "claps in rain": rain,
    "engine passing by": passing_by,
    "horns, rising traffic": street,
}
