"""The audible half of AV-Sync: impacts, strokes, beeps and vowels at given instants, over noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avt_jax.data.av_events.audio import colored_noise
from avt_jax.data.av_sync.things import Thing

# A sound ends where it has fallen by so many times its decay time, 43 dB.
_DECAYS = 5.0
_ATTACK_SEC = 0.002
_VOWEL_SEC = 0.35


def sound_sec(thing: Thing) -> float:
    """How long a sound of a thing lasts."""
    return _VOWEL_SEC if thing.kind == "mouth" else _DECAYS * thing.make.decay_sec


def make_sound(thing: Thing, rng: np.random.Generator, sample_rate_hz: int) -> np.ndarray:
    """One sound, from its onset on, with a peak of 1.

    Args:
      thing: what sounds.
      rng: source of phases and noise.
      sample_rate_hz: > 0.

    Returns:
      float64 [samples].
    """
    time_sec = np.arange(round(sound_sec(thing) * sample_rate_hz)) / sample_rate_hz
    if thing.kind == "mouth":
        wave = _vowel(thing, rng, time_sec, sample_rate_hz)
    else:
        wave = _struck(thing, rng, time_sec, sample_rate_hz)
    wave = wave * np.minimum(1.0, time_sec / _ATTACK_SEC)
    return wave / float(np.abs(wave).max())


def pitch_hz(thing: Thing) -> float:
    """The lowest frequency of a thing's sound: the larger, the lower, over an octave and a half."""
    middle_hz = {"ball": 420.0, "hammer": 900.0, "lamp": 1000.0, "mouth": 170.0}[thing.kind]
    return middle_hz * thing.make.pitch * 2.0 ** (0.75 - 1.5 * thing.size)


def _struck(
    thing: Thing, rng: np.random.Generator, time_sec: np.ndarray, sample_rate_hz: int
) -> np.ndarray:
    """Partials that die away, the higher the faster; of what hits something with a click."""
    wave = np.zeros_like(time_sec)
    for number, ratio in enumerate(thing.make.partials):
        frequency_hz = pitch_hz(thing) * ratio
        if frequency_hz < 0.45 * sample_rate_hz:
            decay = np.exp(-time_sec * (1 + 0.5 * number) / thing.make.decay_sec)
            phase = rng.uniform(0, 2 * np.pi)
            wave += 0.7**number * decay * np.sin(2 * np.pi * frequency_hz * time_sec + phase)
    if thing.kind != "lamp":
        click = rng.standard_normal(len(time_sec)) * np.exp(-time_sec / 0.004)
        wave += (0.8 if thing.kind == "hammer" else 0.3) * click
    return wave


def _vowel(
    thing: Thing, rng: np.random.Generator, time_sec: np.ndarray, sample_rate_hz: int
) -> np.ndarray:
    """Harmonics of a voice, weighted by resonances at the formants."""
    fundamental_hz = pitch_hz(thing) * (1 + rng.uniform(-0.03, 0.03))
    wave = np.zeros_like(time_sec)
    for partial in range(1, int(0.45 * sample_rate_hz / fundamental_hz) + 1):
        frequency_hz = partial * fundamental_hz
        weight = sum(
            0.5**number / (1 + ((frequency_hz - formant_hz) / 90.0) ** 2)
            for number, formant_hz in enumerate(thing.make.partials)
        )
        phase = rng.uniform(0, 2 * np.pi)
        wave += weight * np.sin(2 * np.pi * frequency_hz * time_sec + phase)
    left_sec = time_sec[-1] - time_sec
    return wave * np.minimum(1.0, np.minimum(time_sec / 0.03, left_sec / 0.1))


def mix_audio(
    sounding: Sequence[tuple[Thing, np.ndarray]],
    rng: np.random.Generator,
    *,
    clip_sec: float,
    sample_rate_hz: int,
    snr_db: float | None = None,
) -> np.ndarray:
    """The sound of a clip.

    Args:
      sounding: [(thing, [n] instants in s)].
      rng: source of levels, timbre and background.
      clip_sec: length.
      sample_rate_hz: > 0.
      snr_db: mean power of what sounds, while it does, over the background's; None draws 18 to 36.

    Returns:
      float32 [samples] in [-1, 1]. What begins near the end is cut off there.
    """
    level_db, drawn_db = rng.uniform(-14.0, -6.0), rng.uniform(18.0, 36.0)
    background = colored_noise(rng, round(clip_sec * sample_rate_hz), tilt=rng.uniform(0.0, 0.6))
    waveform = np.zeros(len(background))
    active = np.zeros(len(background), bool)
    for thing, instants_n in sounding:
        for instant_sec in instants_n:
            gain = 10 ** ((level_db + rng.uniform(-3, 3)) / 20)
            start = round(instant_sec * sample_rate_hz)
            sound = gain * make_sound(thing, rng, sample_rate_hz)[: len(waveform) - start]
            waveform[start : start + len(sound)] += sound
            active[start : start + len(sound)] = True
    power_db = 10 * np.log10(np.mean(waveform[active] ** 2)) if active.any() else level_db
    ratio_db = drawn_db if snr_db is None else snr_db
    waveform += 10 ** ((power_db - ratio_db) / 20) * background
    waveform *= min(1.0, 0.9 / float(np.abs(waveform).max()))
    return waveform.astype(np.float32)
