"""Measures how fast training batches are made: clips/s, where the time goes, and two yardsticks.

    python benchmarks/pipeline.py
    python benchmarks/pipeline.py --path shards

The yardsticks are a PyTorch DataLoader that does the same work with PIL, and the floor: what
libjpeg-turbo needs to decode the frames of a clip and nothing else, on one thread. Without `--path`
clips are drawn first. The sides take turns, and every figure is the slowest, the middle and the
fastest of `--repeats`. Batches made while threads and workers start are not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import itertools
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import simplejpeg
from pipeline_clips import make_shards

from avt_jax.cli.processes.start import restart_with_kept_memory
from avt_jax.data import records
from avt_jax.data.loading import pipeline, sampling
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.media import jpeg
from avt_jax.errors import UserError

PACKAGES = (
    "grain",
    "numpy",
    "simplejpeg",
    "opencv-python-headless",
    "array-record",
    "torch",
    "pillow",
)
# (threads, workers) of ours; a worker has one thread, or it would have more than its core.
SETUPS = ((0, 0), (1, 0), (2, 0), (1, 1), (1, 2))
TORCH_WORKERS = (1, 2)
PARTS = ("read", "decode", "augment", "batch")


def main() -> int:
    """Prints the tables; 2 after a mistake of the user's."""
    args = parse_args()
    # As `avt train` runs; both sides and the floor have it.
    restart_with_kept_memory()
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(args, Path(folder))
        except UserError as error:
            print(f"avt: error: {error}", file=sys.stderr)
            return 2
    return 0


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--path", help="shard folder that `avt extract` made (default: drawn clips)")
    add("--split", default="train")
    add("--batch-size", type=int, default=8)
    add("--batches", type=int, default=12, help="batches per repeat")
    add("--repeats", type=int, default=5)
    add("--num-frames", type=int, default=16)
    add("--clip-sec", type=float, default=8.0)
    add("--frame-size-px", type=int, default=224)
    add("--clips", type=int, default=64, help="drawn clips, of 10 s")
    add("--size", default="340x256", metavar="WxH", help="of a drawn frame, in px")
    return parser.parse_args()


def run(args: argparse.Namespace, folder: Path) -> None:
    """Measures everything and prints it."""
    if not args.path:
        width_px, height_px = map(int, args.size.split("x"))
        make_shards(
            folder, num_clips=args.clips, clip_sec=10.0, height_px=height_px, width_px=width_px
        )
    config = DataConfig(
        path=args.path or str(folder),
        train_split=args.split,
        num_frames=args.num_frames,
        clip_sec=args.clip_sec,
        frame_size_px=args.frame_size_px,
    )
    source = records.open_split(config.path, config.train_split)
    print_conditions(source, config, args)
    print_split(measure_split(source, config, args))
    print_rates(measure_rates(source, config, args))


def print_conditions(
    source: records.RecordSource, config: DataConfig, args: argparse.Namespace
) -> None:
    """Prints what the figures depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [name for name in PACKAGES if importlib.util.find_spec(_module(name))]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in found)
    frames = source[0]["frames"]
    height_px, width_px = jpeg.frame_shape(frames[0])
    sizes = [len(frame) for i in range(min(8, len(source))) for frame in source[i]["frames"]]
    frame_kb = statistics.mean(sizes) / 1e3
    load = f", load average {os.getloadavg()[0]:.1f} at the start"
    print(
        f"{cores} CPU cores{load}, Python {platform.python_version()}, {versions}\n"
        f"{len(source)} clips of {len(frames)} frames, {width_px} x {height_px} px, "
        f"{frame_kb:.1f} kB each; used: {config.num_frames} frames, cropped to "
        f"{config.frame_size_px} px, and {config.clip_sec:g} s of sound; "
        f"batches of {args.batch_size}, {args.batches} per repeat, {args.repeats} repeats"
    )


def _module(package: str) -> str:
    names = {"opencv-python-headless": "cv2", "array-record": "array_record", "pillow": "PIL"}
    return names.get(package, package)


class Repeated:
    """A split's clips over and over, as many as a real data set has.

    Grain's shuffling takes longer the fewer clips there are, up to a millisecond for each.
    """

    def __init__(self, source: records.RecordSource):
        """Repeats the clips of `source`."""
        self._source = source

    def __len__(self) -> int:
        return -(-100_000 // len(self._source)) * len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[index % len(self._source)]

    def read_lazily(self, index: int) -> dict[str, Any]:
        """As the source does it."""
        return self._source.read_lazily(index % len(self._source))


class Clock:
    """Adds up the time that calls of functions take."""

    def __init__(self):
        """Starts with nothing."""
        self.seconds = 0.0

    def timed(self, function: Callable) -> Callable:
        """The function, with its time added."""

        def call(*args, **kwargs):
            start_sec = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start_sec

        return call


@contextlib.contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Replaces an attribute for a while."""
    original = getattr(owner, name)
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def measure_split(
    source: records.RecordSource, config: DataConfig, args: argparse.Namespace
) -> dict[str, list[float]]:
    """Milliseconds per clip on one thread: the parts of ours, their sum, and the floor."""
    rows: dict[str, list[float]] = {
        name: [] for name in (*PARTS, "all", "floor", "floor, same options")
    }
    setup = dataclasses.replace(config, num_threads=0, num_workers=0)
    batches = pipeline.make_train_iterator(
        Repeated(source), setup, batch_size=args.batch_size, seed=0
    )
    clips = args.batches * args.batch_size
    with contextlib.closing(batches):
        next(batches)
        for _ in range(args.repeats):
            clocks = {name: Clock() for name in ("read", "decode", "example", "all")}
            with (
                replaced(records.RecordSource, "read_lazily", clocks["read"].timed),
                replaced(jpeg.BoxDecoder, "decode", clocks["decode"].timed),
                replaced(sampling, "train_example", clocks["example"].timed),
            ):
                take = clocks["all"].timed(next)
                for _ in range(args.batches):
                    take(batches)
            msec = {name: 1e3 * clock.seconds / clips for name, clock in clocks.items()}
            rows["read"].append(msec["read"])
            rows["decode"].append(msec["decode"])
            rows["augment"].append(msec["example"] - msec["decode"])
            rows["batch"].append(msec["all"] - msec["example"] - msec["read"])
            rows["all"].append(msec["all"])
            for name, options in (
                ("floor", {}),
                ("floor, same options", {"fastdct": True, "fastupsample": True}),
            ):
                rows[name].append(measure_floor(source, config, options))
    return rows


def measure_floor(
    source: records.RecordSource, config: DataConfig, options: dict[str, bool]
) -> float:
    """Milliseconds to decode the frames of a clip, whole."""
    clock = Clock()
    decode = clock.timed(lambda jpegs: [simplejpeg.decode_jpeg(j, **options) for j in jpegs])
    count = min(len(source), 48)
    for index in range(count):
        record = source[index]
        chosen = sampling.frame_indices(
            0.0, config, frame_rate_hz=record["frame_rate_hz"], num_stored=len(record["frames"])
        )
        decode([record["frames"][i] for i in chosen])
    return 1e3 * clock.seconds / count


def measure_rates(
    source: records.RecordSource, config: DataConfig, args: argparse.Namespace
) -> dict[tuple[str, int, int], list[float]]:
    """Clips/s of every side, by (side, threads, workers)."""
    sides: dict[tuple[str, int, int], Callable[[], Iterator]] = {}
    for threads, workers in SETUPS:
        setup = dataclasses.replace(config, num_threads=threads, num_workers=workers)
        sides["avt_jax", threads, workers] = lambda setup=setup: pipeline.make_train_iterator(
            Repeated(source), setup, batch_size=args.batch_size, seed=0
        )
    if importlib.util.find_spec("torch"):
        from pipeline_torch import torch_batches

        for workers in TORCH_WORKERS:
            sides["PyTorch", 1, workers] = lambda workers=workers: torch_batches(
                config, batch_size=args.batch_size, num_workers=workers, seed=0
            )
    rates: dict[tuple[str, int, int], list[float]] = {side: [] for side in sides}
    for _, (side, start) in itertools.product(range(args.repeats), sides.items()):
        rates[side].append(measure_rate(start(), config, args))
    return rates


def measure_rate(batches: Iterator, config: DataConfig, args: argparse.Namespace) -> float:
    """Clips per second of one freshly started iterator."""
    try:
        # What was made ahead while starting would count as made in no time.
        for _ in range(2 + config.prefetch):
            next(batches)
        start_sec = time.perf_counter()
        for _ in range(args.batches):
            next(batches)
        return args.batches * args.batch_size / (time.perf_counter() - start_sec)
    finally:
        if hasattr(batches, "close"):
            batches.close()
        elif hasattr(batches, "_shutdown_workers"):
            # A forked worker may crash when it is told to end; what it made is counted already.
            with contextlib.suppress(RuntimeError):
                batches._shutdown_workers()


def print_split(rows: dict[str, list[float]]) -> None:
    """Prints where the time of a clip goes, and the floor."""
    print("\n| one clip, one thread | ms: min | median | max | share |\n|---|---|---|---|---|")
    whole = statistics.median(rows["all"])
    for name, msec in rows.items():
        share = f"{100 * statistics.median(msec) / whole:.0f} %" if name in PARTS else ""
        print(f"| {name} | {_three(msec, 2)} | {share} |")
    for name in ("floor", "floor, same options"):
        print(f"\nall / {name}: {whole / statistics.median(rows[name]):.2f}", end="")
    print("\n")


def print_rates(rates: dict[tuple[str, int, int], list[float]]) -> None:
    """Prints clips/s, and how much more a core of ours does than one of PyTorch's."""
    print("| | threads | workers | clips/s: min | median | max |\n|---|---|---|---|---|---|")
    for (side, threads, workers), found in rates.items():
        print(f"| {side} | {threads} | {workers} | {_three(found, 1)} |")
    for workers in TORCH_WORKERS:
        if ("PyTorch", 1, workers) not in rates:
            print("\nPyTorch is not installed; pip install torch to compare with it.")
            return
        theirs = statistics.median(rates["PyTorch", 1, workers])
        for threads, processes in ((1, workers), (workers, 0)):
            ratio = statistics.median(rates["avt_jax", threads, processes]) / theirs
            kind = f"{processes} worker(s)" if processes else f"{threads} thread(s)"
            print(f"\navt_jax with {kind} / PyTorch with {workers} worker(s): {ratio:.2f}", end="")
    print()


def _three(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return " | ".join(f"{value:.{digits}f}" for value in (low, middle, high))


if __name__ == "__main__":
    sys.exit(main())
