"""Makes the audible half of AV-Events: one to three sounds of one of four kinds over soft noise.

The kind is the only thing that carries the label. Pitch, level, duration, number and time of the
sounds and the background are drawn from a random stream that knows neither the kind nor the motion.
"""

from __future__ import annotations

import numpy as np

KINDS = ("tone", "chirp", "noise", "clicks")

_EDGE_SEC = 0.15  # silence kept free at both ends of a clip
_GAP_SEC = 0.2  # least silence between two sounds
_SWEEP_SEC = 0.2  # about one rise of a chirp
_FADE_SEC = 0.01  # so that a sound starts and ends without a click of its own


def place_events(rng: np.random.Generator, clip_sec: float) -> list[tuple[float, float]]:
    """Draws when the sounds of a clip start and end.

    Args:
      rng: source of number, durations and gaps.
      clip_sec: length of the clip, at least 1 s.

    Returns:
      One to three (onset_sec, offset_sec), in order, not overlapping, well inside the clip.
    """
    num_events = int(rng.integers(1, 4))
    durations = rng.uniform(0.4, 0.9, size=3)[:num_events]
    room_sec = clip_sec - 2 * _EDGE_SEC - (num_events - 1) * _GAP_SEC
    # Short clips cannot hold three long sounds: shrink all of them alike.
    durations = durations * min(1.0, 0.9 * room_sec / durations.sum())
    spare_sec = room_sec - durations.sum()
    cuts = np.sort(rng.uniform(size=3)[:num_events]) * spare_sec
    before = np.concatenate([[0.0], np.cumsum(durations + _GAP_SEC)[:-1]])
    onsets = _EDGE_SEC + cuts + before
    return [
        (float(onset), float(onset + length))
        for onset, length in zip(onsets, durations, strict=True)
    ]


def make_sound(
    kind: str, rng: np.random.Generator, *, pitch: float, duration_sec: float, sample_rate_hz: int
) -> np.ndarray:
    """One sound with unit root mean square.

    Args:
      kind: one of KINDS.
      rng: source of phases, noise and timbre.
      pitch: in [0, 1], low to high; the sounds of one clip share it roughly.
      duration_sec: > 0.
      sample_rate_hz: > 0.

    Returns:
      float64 [samples].

    Raises:
      ValueError: `kind` is not one of KINDS.
    """
    time_sec = np.arange(round(duration_sec * sample_rate_hz)) / sample_rate_hz
    if kind == "tone":
        wave = _harmonics(rng, np.full_like(time_sec, 220.0 * 4.0**pitch), sample_rate_hz)
    elif kind == "chirp":
        # Two octaves up, exponentially, again and again as a bird does: steep rising lines on a mel
        # axis whatever their start.
        sweep_sec = duration_sec / max(1, round(duration_sec / _SWEEP_SEC))
        frequency_hz = 350.0 * 3.0**pitch * 4.0 ** (time_sec / sweep_sec % 1.0)
        wave = _harmonics(rng, frequency_hz, sample_rate_hz)
    elif kind == "noise":
        wave = colored_noise(rng, len(time_sec), tilt=0.5 * (1.0 - pitch))
    elif kind == "clicks":
        wave = _click_train(rng, time_sec, rate_hz=9.0 + 7.0 * pitch, sample_rate_hz=sample_rate_hz)
    else:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
    if kind != "clicks":
        fade = np.minimum(1.0, np.minimum(time_sec, time_sec[-1] - time_sec) / _FADE_SEC)
        wave = wave * fade
    return wave / max(float(np.sqrt(np.mean(wave**2))), 1e-9)


def synthesize_audio(
    kind: str,
    rng: np.random.Generator,
    *,
    clip_sec: float,
    sample_rate_hz: int,
    snr_db: float | None = None,
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Renders the sound of one clip.

    Args:
      kind: one of KINDS; the only thing that depends on the label.
      rng: source of all nuisances.
      clip_sec: length, at least 1 s.
      sample_rate_hz: > 0.
      snr_db: mean power of the clip's sounds, while they last, over the background's; None draws
        the background's level. It changes nothing else, but that a mix which would clip is made
        softer as a whole.

    Returns:
      (waveform, events): float32 [samples] in [-1, 1]; the true (onset_sec, offset_sec) per sound.

    Raises:
      ValueError: `kind` is not one of KINDS.
    """
    # How many numbers a kind consumes must not shift the nuisances: these come first, and the
    # sounds get a stream of their own.
    events = place_events(rng, clip_sec)
    level_db = rng.uniform(-27.0, -15.0)
    background_db = level_db - rng.uniform(18.0, 36.0)
    pitch = rng.uniform(0.1, 0.9)
    background_tilt = rng.uniform(0.0, 0.6)
    sound_rng = np.random.default_rng(rng.integers(2**63))

    num_samples = round(clip_sec * sample_rate_hz)
    background = colored_noise(rng, num_samples, tilt=background_tilt)
    waveform = np.zeros(num_samples)
    sounding = np.zeros(num_samples, bool)
    exact_events = []
    for onset_sec, offset_sec in events:
        sound = make_sound(
            kind,
            sound_rng,
            pitch=float(np.clip(pitch + sound_rng.uniform(-0.1, 0.1), 0.0, 1.0)),
            duration_sec=offset_sec - onset_sec,
            sample_rate_hz=sample_rate_hz,
        )
        start = round(onset_sec * sample_rate_hz)
        gain = 10 ** ((level_db + sound_rng.uniform(-3, 3)) / 20)
        # Clicks have high peaks for their energy: lower them rather than let them clip.
        gain = min(gain, 0.9 / float(np.abs(sound).max()))
        waveform[start : start + len(sound)] += gain * sound
        sounding[start : start + len(sound)] = True
        exact_events.append((start / sample_rate_hz, (start + len(sound)) / sample_rate_hz))
    if snr_db is not None:
        background_db = 10 * np.log10(np.mean(waveform[sounding] ** 2)) - snr_db
    waveform += 10 ** (background_db / 20) * background
    if snr_db is not None:
        waveform *= min(1.0, 0.9 / float(np.abs(waveform).max()))
    return np.clip(waveform, -0.99, 0.99).astype(np.float32), exact_events


def _harmonics(
    rng: np.random.Generator, frequency_hz: np.ndarray, sample_rate_hz: int
) -> np.ndarray:
    """Four to six partials of a moving fundamental; those above 45 % of the rate are left out."""
    phase = 2 * np.pi * np.cumsum(frequency_hz) / sample_rate_hz
    decay = rng.uniform(0.45, 0.75)
    wave = np.zeros_like(frequency_hz)
    for partial in range(1, int(rng.integers(4, 7)) + 1):
        audible = frequency_hz * partial < 0.45 * sample_rate_hz
        wave += (
            audible * decay ** (partial - 1) * np.sin(partial * phase + rng.uniform(0, 2 * np.pi))
        )
    return wave


def colored_noise(rng: np.random.Generator, num_samples: int, *, tilt: float) -> np.ndarray:
    """Gaussian noise of unit root mean square whose amplitude is frequency ** -tilt.

    Args:
      rng: source of the noise.
      num_samples: > 0.
      tilt: 0 is white, 0.5 pink.

    Returns:
      float64 [num_samples].
    """
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    # Flat in the first hundredth of the band: else the lowest bins would hold all of the energy.
    bins = np.maximum(np.arange(len(spectrum)) / len(spectrum), 0.01)
    wave = np.fft.irfft(spectrum * bins**-tilt, num_samples)
    return wave / np.sqrt(np.mean(wave**2))


def _click_train(
    rng: np.random.Generator, time_sec: np.ndarray, *, rate_hz: float, sample_rate_hz: int
) -> np.ndarray:
    """Bursts that die away within milliseconds, about `rate_hz` of them per second, end to end."""
    click_time_sec = np.arange(round(0.012 * sample_rate_hz)) / sample_rate_hz
    envelope = np.exp(-click_time_sec / rng.uniform(0.002, 0.003))
    num_clicks = max(2, round(len(time_sec) / sample_rate_hz * rate_hz))
    # The first starts and the last ends with the sound, so that its stated times are true.
    last_start = max(len(time_sec) - len(click_time_sec), 0)
    wave = np.zeros(last_start + len(click_time_sec))
    for start in np.linspace(0, last_start, num_clicks).round().astype(int):
        burst = envelope * rng.standard_normal(len(click_time_sec))
        wave[start : start + len(click_time_sec)] += burst
    return wave[: len(time_sec)]
