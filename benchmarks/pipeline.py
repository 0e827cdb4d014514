"""Measures how fast batches are made from a folder of shards: clips/s with threads and workers.

    python benchmarks/pipeline.py --path shards

Each row takes `--batches` training batches, `--repeats` times, and prints the slowest, the middle
and the fastest repeat. A few batches before those are not counted: threads and workers start then.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import platform
import statistics
import sys
import time
from importlib import metadata

from avt_jax.data import pipeline, records
from avt_jax.data.config import DataConfig
from avt_jax.errors import UserError

PACKAGES = ("grain", "numpy", "simplejpeg", "opencv-python-headless", "array-record")
# (threads, workers); a worker has one thread, or it would be compared with two cores' worth.
SETUPS = ((0, 0), (1, 0), (2, 0), (1, 1), (1, 2))


def main() -> int:
    """Prints the table; 2 after a mistake of the user's."""
    args = parse_args()
    try:
        config = DataConfig(
            path=args.path,
            train_split=args.split,
            num_frames=args.num_frames,
            clip_sec=args.clip_sec,
            frame_size_px=args.frame_size_px,
        )
        source = records.open_split(args.path, args.split)
        print_machine()
        print(
            f"{len(source)} clips; {args.num_frames} frames of {args.frame_size_px} px over "
            f"{args.clip_sec:g} s; batches of {args.batch_size}, {args.batches} per repeat, "
            f"{args.repeats} repeats\n\nthreads  workers  clips/s: min  median     max"
        )
        for num_threads, num_workers in SETUPS:
            setup = dataclasses.replace(config, num_threads=num_threads, num_workers=num_workers)
            rates_hz = measure(source, setup, args)
            low, middle, high = min(rates_hz), statistics.median(rates_hz), max(rates_hz)
            print(
                f"{num_threads:7}  {num_workers:7}  {low:12.1f}  {middle:6.1f}  {high:6.1f}",
                flush=True,
            )
    except UserError as error:
        print(f"avt: error: {error}", file=sys.stderr)
        return 2
    return 0


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", required=True, help="shard folder that `avt extract` made")
    parser.add_argument("--split", default="train")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=8, help="batches per repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--num-frames", type=int, default=16)
    parser.add_argument("--clip-sec", type=float, default=8.0)
    parser.add_argument("--frame-size-px", type=int, default=224)
    return parser.parse_args()


def print_machine() -> None:
    """Prints what the figures depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    print(f"{cores} cores, Python {platform.python_version()}, {versions}")


def measure(
    source: records.RecordSource, config: DataConfig, args: argparse.Namespace
) -> list[float]:
    """Clips per second of every repeat."""
    rates_hz = []
    batches = pipeline.make_train_iterator(source, config, batch_size=args.batch_size, seed=0)
    with contextlib.closing(batches):
        # What was made ahead while starting would count as made in no time.
        for _ in range(1 + config.prefetch):
            next(batches)
        for _ in range(args.repeats):
            start_sec = time.perf_counter()
            for _ in range(args.batches):
                next(batches)
            elapsed_sec = time.perf_counter() - start_sec
            rates_hz.append(args.batches * args.batch_size / elapsed_sec)
    return rates_hz


if __name__ == "__main__":
    sys.exit(main())
