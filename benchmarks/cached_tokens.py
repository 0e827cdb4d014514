"""Steps a second of training on cached tokens, beside full training of the same model.

    python benchmarks/cached_tokens.py --config own:tiny --clips 64 --steps 20

makes shards of noise, caches the tokens of the recipe's encoders, random ones, and then takes steps
by turns: of the full training, of the same with frozen encoders (--frozen), and on cached tokens.
Batch size, fusion, heads and the input pipeline's number of threads are the same. It prints the
medians over the rounds, their spread, and what the caching took.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import simplejpeg

import avt_jax
from avt_jax.data.records.writer import RecordWriter
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.tokens.cache import cache_tokens
from avt_jax.experiment.tokens.encoders import Encoders
from avt_jax.training import mesh as meshes


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--config", default="own:tiny")
    cli.add_argument("--clips", type=int, default=64)
    cli.add_argument("--batch-size", type=int, default=16)
    cli.add_argument("--steps", type=int, default=10, help="of each, in a round")
    cli.add_argument("--rounds", type=int, default=5)
    cli.add_argument("--views", type=int, default=2)
    cli.add_argument("--frozen", action="store_true", help="also with frozen encoders")
    args = cli.parse_args()
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        shards, tokens = _write(folder / "shards", args.clips), folder / "tokens"
        changes = {"train.batch_size": args.batch_size, "train.steps": 10**6, "data.num_threads": 2}
        full = Experiment(avt_jax.load_config(args.config, changes | {"data.path": shards}))
        state, _ = full.init_state()
        variables = {**state.params, **state.stats}
        encoders = Encoders(full, full.data, variables, full.splits.info.label_sets)
        begun = time.perf_counter()
        cached = cache_tokens(encoders, shards, tokens, views=args.views, batch_size=16)
        seconds = time.perf_counter() - begun
        views = args.clips * (2 + args.views)  # the validation clips have one view
        print(
            f"{views} views cached in {seconds:.1f} s, compiling included; "
            f"{cached.num_bytes / views / 1e3:.0f} kB each, {cached.tokens.dtype}"
        )
        frozen = {"optimizer.frozen": ("^video_encoder/", "^audio_encoder/")}
        kinds: dict[str, tuple[str, dict[str, Any]]] = {
            "full training": (args.config, {"data.path": shards}),
            "cached tokens": ("own:tokens", {"data.path": str(tokens)}),
        }
        if args.frozen:
            kinds["encoders frozen"] = (args.config, {"data.path": shards, **frozen})
        takers = {
            name: _taker(Experiment(avt_jax.load_config(recipe, changes | more)), stack)
            for name, (recipe, more) in kinds.items()
        }
        rates: dict[str, list[float]] = {name: [] for name in takers}
        for _ in range(args.rounds):
            for name, take in takers.items():
                begun = time.perf_counter()
                take(args.steps)
                rates[name].append(args.steps / (time.perf_counter() - begun))
    base = np.median(rates["full training"])
    for name, found in rates.items():
        middle = np.median(found)
        print(
            f"{name:<16} {middle:8.2f} steps/s ({min(found):.2f} to {max(found):.2f}), "
            f"{middle * args.batch_size:8.1f} clips/s, {middle / base:6.1f} x full training"
        )


def _taker(experiment: Experiment, stack: contextlib.ExitStack) -> Callable[[int], None]:
    """A function that takes so many steps, from the shards to the new parameters; compiled."""
    state, shardings = experiment.init_state()
    step = experiment.packed_step(shardings, state)
    packed = step.pack(state)
    batches = stack.enter_context(contextlib.closing(experiment.train_batches()))
    key = experiment.keys[1]

    def take(count: int) -> None:
        nonlocal packed
        for _ in range(count):
            packed, _metrics = step(packed, meshes.to_device(next(batches), experiment.mesh), key)
        jax.block_until_ready(packed)

    take(2)
    return take


def _write(folder: Path, count: int) -> str:
    """Clips of noise: 4 s, 8 frames a second of 72 x 96 pixels."""
    folder.mkdir()
    options = dict(label_sets={"label": tuple(f"class {i}" for i in range(8))})
    writer = RecordWriter(folder, frame_rate_hz=8.0, short_side_px=72, **options)
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(count):
            frames = rng.integers(0, 256, (32, 72, 96, 3), np.uint8)
            record = {
                "id": f"{split}-{number}",
                "source": f"{split}-{number}",
                "frames": [simplejpeg.encode_jpeg(frame) for frame in frames],
                "frame_rate_hz": np.float32(8.0),
                "fbank": rng.normal(-5, 4, (400, 128)).astype(np.float16),
                "has_audio": True,
                "start_sec": 0.0,
                "end_sec": 4.0,
                "labels": {"label": number % 8},
            }
            writer.add(split, record)
    writer.close()
    return str(folder)


if __name__ == "__main__":
    main()
