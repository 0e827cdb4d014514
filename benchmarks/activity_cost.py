"""Measures activity detection against training steps of the quickstart's tiny model.

    python benchmarks/activity_cost.py

Each step and the detector are compiled, get the same batch of AV-Events sound and take turns, in
milliseconds: least, middle and most of the repeats. Compilation is not counted. The first step is
the quickstart's own, which reconstructs nothing and so detects nothing; the second also learns to
reconstruct hidden activities, and runs the detector itself.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np

from avt_jax import axes
from avt_jax.audio.activity import activity_ids
from avt_jax.audio.melspec import fbank
from avt_jax.data.av_events import audio
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.training import mesh as meshes
from avt_jax.training.step import jit_train_step


def make_batch(data, batch_size: int) -> dict:
    """Noise for pictures, AV-Events for sound."""
    rng = np.random.default_rng(0)
    audio_bsf = np.zeros((batch_size, data.fbank_frames, 128), np.float32)
    for clip, kind in zip(range(batch_size), audio.KINDS * batch_size, strict=False):
        waveform, _ = audio.synthesize_audio(
            kind, rng, clip_sec=data.clip_sec, sample_rate_hz=16000
        )
        rows_sf = fbank(waveform)
        audio_bsf[clip, : len(rows_sf)] = rows_sf
    side = data.frame_size_px
    return {
        axes.VIDEO: rng.integers(0, 256, (batch_size, data.num_frames, side, side, 3), np.uint8),
        axes.AUDIO: audio_bsf,
        axes.HAS_AUDIO: np.ones(batch_size, bool),
        axes.HAS_VIDEO: np.ones(batch_size, bool),
        axes.LABELS: {"label": rng.integers(0, 16, batch_size).astype(np.int32)},
        axes.GROUP: np.arange(batch_size, dtype=np.int32),
        axes.VALID: np.ones(batch_size, bool),
    }


def make_step(experiment: Experiment):
    """(compiled training step, its first state, a batch on the device, key)."""
    parts, mesh = experiment.parts, experiment.mesh
    state, shardings = experiment.init_state()
    batch = meshes.to_device(make_batch(parts.data, parts.train.batch_size), mesh)
    return jit_train_step(experiment.step, shardings, mesh), state, batch, jax.random.key(1)


def timed_ms(call) -> tuple[float, object]:
    """How long a call takes, and what it gives."""
    start_sec = time.perf_counter()
    value = jax.block_until_ready(call())
    return (time.perf_counter() - start_sec) * 1e3, value


STEPS = {
    "quickstart": (),
    "quickstart, with reconstruction": (
        "--config.losses.weights.masked_audio=0.01",
        "--config.model.decoders=('audio',)",
    ),
}


def measure(name: str, overrides: tuple[str, ...], repeats: int) -> None:
    """Prints the lines of one step."""
    config = load_config("quickstart", [*overrides, "--config.data.path=generated:64:label=16"])
    experiment = Experiment(config)
    parts = experiment.parts
    step, state, batch, key = make_step(experiment)
    audio_bsf = jnp.asarray(batch[axes.AUDIO])
    ids = jax.jit(lambda fbank_bsf: activity_ids(fbank_bsf, parts.activity))
    step_ms, ids_ms = [], []
    for _ in range(repeats + 2):
        elapsed_ms, (state, _) = timed_ms(lambda: step(state, batch, key))  # noqa: B023
        step_ms.append(elapsed_ms)
        ids_ms.append(timed_ms(lambda: ids(audio_bsf))[0])
    figures = [(min(v), statistics.median(v), max(v)) for v in (step_ms[2:], ids_ms[2:])]
    shares = [100 * part / whole for whole, part in zip(*figures, strict=True)][:2]
    cells = [f"{value:.2f}" for values in figures for value in values]
    cells += [f"{share:.2f} %" for share in shares]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40)
    args = parser.parse_args()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib"))
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} CPU cores, load average "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, {versions}; ms; "
        f"{args.repeats} repeats\n\n"
        "| step | min | median | max | activity_ids: min | median | max | share: of min | of "
        "median |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name, overrides in STEPS.items():
        measure(name, overrides, args.repeats)


if __name__ == "__main__":
    main()
