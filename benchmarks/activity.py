"""Scores activity detection against true times, and compares the device's result with the host's.

    python benchmarks/activity.py

The first table holds AV-Events (4 s) under noise and level changes, the second the constructed
signals of benchmarks/activity_signals.py (6 s). The two baselines are fixed thresholds with the
same smoothing, merging and dropping:

- "plain": on the summed mel power in dB. Every row uses the threshold that is best for that row's
  own clips, which no detector could know.
- "same envelope": on the detector's own envelope, which is measured against the bands' floors; one
  threshold, the best over all rows of the table.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from avt_jax.audio import activity, activity_spans
from avt_jax.audio.melspec import fbank
from avt_jax.data.av_events.audio import KINDS, synthesize_audio
from avt_jax.evaluation.segments import score, summarize

sys.path.insert(0, str(Path(__file__).parent))
from activity_signals import CLIP_SEC, SIGNALS  # noqa: E402

CONFIG = activity.ActivityConfig()
RATE_HZ = 16000
PLAIN_DB = np.arange(-60.0, 40.0, 1.0)
SAME_DB = np.arange(1.0, 20.0, 0.5)


def av_events(number: int, *, snr_db=None, step_db=0.0, peak_dbfs=None):
    """[(log-mel [s, 128], true spans)]; half of the level changes go up and half down."""
    clips = []
    for index in range(number):
        rng = np.random.default_rng([90, index])
        waveform, events = synthesize_audio(
            KINDS[index % 4], rng, clip_sec=4.0, sample_rate_hz=RATE_HZ, snr_db=snr_db
        )
        waveform = waveform.astype(np.float64)
        louder = (np.arange(len(waveform)) >= len(waveform) // 2) == (index % 8 < 4)
        waveform *= np.where(louder, 1.0, 10 ** (-step_db / 20))
        if peak_dbfs is not None:
            waveform *= 10 ** (peak_dbfs / 20) / np.abs(waveform).max()
        clips.append((fbank(waveform), events))
    return clips


def signals(name: str, number: int):
    """[(log-mel, true spans)] of one kind of constructed signal."""
    clips = []
    for index in range(number):
        waveform, events = SIGNALS[name](np.random.default_rng([91, index]))
        clips.append((fbank(np.clip(waveform, -1, 1)), events))
    return clips


@functools.partial(jax.jit, static_argnames="plain")
def smoothed_db(fbank_bsf: jax.Array, *, plain: bool) -> jax.Array:
    """[b, s] envelope of the baselines."""

    def one(rows_sf):
        if plain:
            valid_s = jnp.ones(len(rows_sf), bool)
            envelope_s = 10 / np.log(10) * jax.nn.logsumexp(rows_sf, axis=-1)
            return activity._gaussian(envelope_s, valid_s, CONFIG.smoothing_sec)
        return activity._analyse_clip(rows_sf, CONFIG).smoothed_db

    return jax.vmap(one)(fbank_bsf)


@jax.jit
def tidied(active_bs: jax.Array) -> jax.Array:
    """Ids [b, s] after merging and dropping."""
    valid_s = jnp.ones(active_bs.shape[1], bool)
    return jax.vmap(lambda active_s: activity._tidy(active_s, valid_s, CONFIG))(active_bs)


def summary_of(ids_bs, clips) -> dict[str, float]:
    """Scores of a batch of ids."""
    return summarize(
        score(activity_spans.spans_of(ids_s), true, duration_sec=len(ids_s) * 0.01 + 0.015)
        for ids_s, (_, true) in zip(np.asarray(ids_bs), clips, strict=True)
    )


def with_threshold(batch_bsf, clips, threshold_db: float, *, plain: bool) -> dict[str, float]:
    """A fixed threshold's scores."""
    return summary_of(tidied(smoothed_db(batch_bsf, plain=plain) >= threshold_db), clips)


def print_table(rows: dict[str, list]) -> None:
    """One line per set of clips."""
    batches = {name: np.stack([rows_sf for rows_sf, _ in clips]) for name, clips in rows.items()}
    same_f1 = [
        np.mean(
            [
                with_threshold(batches[name], clips, level, plain=False)["frame_f1"]
                for name, clips in rows.items()
            ]
        )
        for level in SAME_DB
    ]
    same_db = SAME_DB[int(np.argmax(same_f1))]
    print(
        "| clips | frame F1 | onset ms: median, p90 | offset ms: median, p90 | segment F1 | "
        f"plain: frame F1 | segment F1 | at dB | same envelope at {same_db:g} dB: frame F1 | "
        "segment F1 |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for name, clips in rows.items():
        ours = summary_of(activity.activity_ids(jnp.asarray(batches[name]), CONFIG), clips)
        plain = {
            level: with_threshold(batches[name], clips, level, plain=True) for level in PLAIN_DB
        }
        plain_db = max(plain, key=lambda level: np.nan_to_num(plain[level]["frame_f1"]))  # noqa: B023
        same = with_threshold(batches[name], clips, same_db, plain=False)
        errors = [
            ", ".join(f"{ours[f'{end}_error_ms_{part}']:.0f}" for part in ("median", "p90"))
            for end in ("onset", "offset")
        ]
        print(
            f"| {name} | **{ours['frame_f1']:.3f}** | {errors[0]} | {errors[1]} | "
            f"{ours['segment_f1']:.3f} | {plain[plain_db]['frame_f1']:.3f} | "
            f"{plain[plain_db]['segment_f1']:.3f} | {plain_db:g} | {same['frame_f1']:.3f} | "
            f"{same['segment_f1']:.3f} |",
            flush=True,
        )
    print()


def count_equal(number: int, batch_size: int = 50) -> tuple[int, int]:
    """(clips whose ids are the same in a jitted batch and one by one on the host, activities)."""
    inside = jax.jit(lambda fbank_bsf: activity.activity_ids(fbank_bsf, CONFIG))
    equal = activities = 0
    for start in range(0, number, batch_size):
        rng = np.random.default_rng([92, start])
        clips = []
        for index in range(batch_size):
            waveform, _ = synthesize_audio(
                KINDS[index % 4],
                rng,
                clip_sec=4.0,
                sample_rate_hz=RATE_HZ,
                snr_db=rng.uniform(-5, 40),
            )
            rows_sf = fbank(waveform * 10 ** rng.uniform(-3, 0))
            if index % 5 == 4:  # a wandering spectrogram without any silence
                wander_sf = np.cumsum(rng.normal(0, 0.4, rows_sf.shape), axis=0) - 8
                rows_sf = np.clip(wander_sf, -15.9, 8).astype(np.float32)
            clips.append(rows_sf)
        ids_bs = np.asarray(inside(jnp.asarray(np.stack(clips))))
        for ids_s, rows_sf in zip(ids_bs, clips, strict=True):
            equal += bool(np.array_equal(ids_s, activity_spans.analyse(rows_sf, CONFIG).ids))
            activities += int(ids_s.max())
    return equal, activities


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=120, help="per row (default %(default)s)")
    parser.add_argument("--equal", type=int, default=1000, help="clips to compare device and host")
    args = parser.parse_args()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib", "numpy"))
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} CPU cores, Python "
        f"{platform.python_version()}, {versions}; {args.clips} clips a row\n"
    )
    number = args.clips
    print_table(
        {
            "as rendered (15 to 39 dB)": av_events(number),
            "20 dB SNR": av_events(number, snr_db=20.0),
            "10 dB SNR": av_events(number, snr_db=10.0),
            "5 dB SNR": av_events(number, snr_db=5.0),
            "0 dB SNR": av_events(number, snr_db=0.0),
            "20 dB level change": av_events(number, step_db=20.0),
            "20 dB level change, 20 dB SNR": av_events(number, snr_db=20.0, step_db=20.0),
            "peak at 0 dBFS": av_events(number, peak_dbfs=0.0),
            "peak at -40 dBFS": av_events(number, peak_dbfs=-40.0),
        }
    )
    print(f"{CLIP_SEC:g} s clips:\n")
    print_table({name: signals(name, number) for name in SIGNALS})
    equal, activities = count_equal(args.equal)
    print(f"device = host: {equal} of {args.equal} clips with {activities} activities")


if __name__ == "__main__":
    main()
