"""Measures extraction: clips/s with one and two workers, kills and restarts it, cuts a long video.

    python benchmarks/extract.py
    python benchmarks/extract.py --clips 200 --repeats 1
    python benchmarks/extract.py --against ../older    # rates of two checkouts, by turns

Renders short videos (340x256 px, 30 frames/s, H.264 with a key frame every 2 s, AAC sound) and cuts
each into 20 overlapping spans, no two alike. Then:

- extracts them with 1 and with 2 workers by turns and compares the shards of all runs,
- extracts every whole video, 10 s, with one worker: what the hours in docs/data.md follow from,
- kills (SIGKILL) a run at a third of its shards, the next one at two thirds, lets a third one end
  and compares its files with those of a run that was left alone,
- does it with Beam's DirectRunner and compares, if Beam is installed,
- cuts the same span near the start and near the end of a video of 12 minutes.

Exits with 1 if anything that must be equal is not.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import av
import cv2
import numpy as np
import tqdm

from avt_jax.data.extraction import work_folder
from avt_jax.data.extraction.clip_record import ExtractConfig, make_record
from avt_jax.data.extraction.extract import extract
from avt_jax.data.manifests.manifest import read_manifest
from avt_jax.host import worker_pool
from avt_jax.host.checksum import sha256_of

PACKAGES = ("av", "simplejpeg", "numpy", "array-record", "tensorflow-datasets", "protobuf")
HEIGHT_PX, WIDTH_PX, FRAME_RATE_HZ, KEY_FRAME_SEC = 256, 340, 30, 2
SAMPLE_RATE_HZ = 44_100
VIDEO_SEC, SPANS_PER_VIDEO, SPAN_SEC = 10, 20, 2.0
LONG_SEC, LONG_KEY_FRAME_SEC, LONG_SPAN_SEC = 720, 8, 3.0


def main() -> int:
    """Runs everything; 1 if runs that must agree do not."""
    args = parse_args()
    cores = worker_pool.default_num_workers()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    print(f"{cores} cores, Python {platform.python_version()}, {versions}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="avt-extract-", dir=args.work))
    try:
        clips, whole = render_all(folder, args.clips)
        if args.against:
            compare_trees(folder, [clips, whole], args.against, args.repeats)
            return 0
        is_good = measure_workers(folder, clips, args)
        measure_whole(folder, whole, args.repeats)
        is_good &= kill_twice(folder, clips, args)
        is_good &= compare_beam(folder, clips, args)
        measure_seeking(folder)
    finally:
        shutil.rmtree(folder)
    print("everything agrees" if is_good else "NOT everything agrees")
    return 0 if is_good else 1


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clips-per-shard", type=int, default=64)
    parser.add_argument("--against", type=Path, help="only compare rates with this other checkout")
    parser.add_argument("--work", help="where to put about 2 MB per clip and run (default: /tmp)")
    return parser.parse_args()


def render_all(folder: Path, num_clips: int) -> tuple[Path, Path]:
    """Renders the videos; returns the manifest of their spans and that of whole videos."""
    num_videos = -(-num_clips // SPANS_PER_VIDEO)
    for index in tqdm.trange(num_videos, desc="rendering", unit="video"):
        pictures = draw(index, VIDEO_SEC * FRAME_RATE_HZ, HEIGHT_PX, WIDTH_PX)
        render(folder / f"{index}.mp4", pictures, FRAME_RATE_HZ, KEY_FRAME_SEC, seed=index)
    step_sec = (VIDEO_SEC - SPAN_SEC) / (SPANS_PER_VIDEO - 1)
    spans = [
        f"{index // SPANS_PER_VIDEO}.mp4,{start:.3f},{start + SPAN_SEC:.3f}"
        for index in range(num_clips)
        for start in [index % SPANS_PER_VIDEO * step_sec]
    ]
    whole = [f"{index}.mp4,," for index in range(num_videos)]
    size_mb = sum(path.stat().st_size for path in folder.glob("*.mp4")) / 1e6
    print(
        f"{num_videos} videos of {VIDEO_SEC} s, {WIDTH_PX}x{HEIGHT_PX}, {FRAME_RATE_HZ} frames/s, "
        f"{size_mb:.0f} MB; {num_clips} spans of {SPAN_SEC:g} s",
        flush=True,
    )
    for name, lines in (("spans.csv", spans), ("whole.csv", whole)):
        rows = "".join(
            f"{line},{'ab'[i % 2]},{'val' if i % 10 == 9 else 'train'}\n"
            for i, line in enumerate(lines)
        )
        (folder / name).write_text(f"path,start_sec,end_sec,label,split\n{rows}")
    return folder / "spans.csv", folder / "whole.csv"


def draw(seed: int, num_frames: int, height_px: int, width_px: int):
    """Yields pictures: a cloudy ground that glides, grain as of a camera, a disc that runs."""
    rng = np.random.default_rng(seed)
    ground = np.zeros((height_px + 128, width_px + 128, 3), np.float32)
    for cells in (4, 16, 64):
        noise = rng.normal(0, 160 / cells**0.5, (cells, cells, 3)).astype(np.float32)
        ground += cv2.resize(noise, ground.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    ground = np.clip(ground + 128, 0, 255).astype(np.uint8)
    grain = rng.integers(-3, 4, (num_frames + height_px, width_px, 3)).astype(np.int8)
    for index in range(num_frames):
        top, left = (round(64 + 63 * f(index / 40)) for f in (np.sin, np.cos))
        image_hwc = ground[top : top + height_px, left : left + width_px].copy()
        center = (index * 5 % width_px, height_px // 2)
        cv2.circle(image_hwc, center, height_px // 8, (230, 60, 40), -1)
        noisy_hwc = image_hwc.astype(np.int16) + grain[index : index + height_px]
        yield np.clip(noisy_hwc, 0, 255).astype(np.uint8)


def render(path: Path, pictures, frame_rate_hz: int, key_frame_sec: int, *, seed: int) -> None:
    """Encodes pictures with as much sound: noise that comes and goes."""
    rng = np.random.default_rng(seed)
    num_frames = 0
    with av.open(os.fspath(path), "w") as container:
        video = container.add_stream("libx264", rate=frame_rate_hz)
        video.pix_fmt = "yuv420p"
        video.options = {"preset": "veryfast", "g": str(key_frame_sec * frame_rate_hz)}
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        for image_hwc in pictures:
            if not num_frames:
                video.height, video.width = image_hwc.shape[:2]
            frame = av.VideoFrame.from_ndarray(image_hwc, "rgb24")
            container.mux(video.encode(frame))
            if num_frames % frame_rate_hz == 0:
                wave = rng.normal(0, 0.1 * rng.random(), (1, SAMPLE_RATE_HZ)).astype(np.float32)
                sound = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                sound.sample_rate = SAMPLE_RATE_HZ
                sound.pts = num_frames // frame_rate_hz * SAMPLE_RATE_HZ
                container.mux(audio.encode(sound))
            num_frames += 1
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def run(clips: Path, out: Path, num_workers: int, clips_per_shard: int) -> float:
    """Extracts; returns clips/s."""
    summary = extract(
        read_manifest(clips),
        out,
        config=ExtractConfig(),
        num_workers=num_workers,
        clips_per_shard=clips_per_shard,
    )
    assert not summary.num_failed, summary.num_failed
    return sum(summary.num_clips.values()) / summary.elapsed_sec


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {p.name: sha256_of(p) for p in sorted(folder.iterdir())}


def spread(values) -> str:
    """The slowest, the middle and the fastest."""
    return f"{min(values):.2f} / {statistics.median(values):.2f} / {max(values):.2f}"


def measure_workers(folder: Path, clips: Path, args: argparse.Namespace) -> bool:
    """Rates with one and two workers; the first result is kept as `folder`/whole."""
    warm_up(folder, clips)
    rates_hz: dict[int, list[float]] = {1: [], 2: []}
    expected = None
    is_same = True
    for _ in range(args.repeats):
        for num_workers in rates_hz:
            out = folder / "run"
            rates_hz[num_workers].append(run(clips, out, num_workers, args.clips_per_shard))
            found = digests(out)
            if expected is None:
                expected = found
                out.rename(folder / "whole")
            else:
                is_same &= found == expected
                shutil.rmtree(out)
    print("\nworkers  clips/s: slowest / median / fastest")
    for num_workers, values in rates_hz.items():
        print(f"{num_workers:7}  {spread(values)}")
    ratios = [two / one for one, two in zip(rates_hz[1], rates_hz[2], strict=True)]
    print(f"2 workers against 1, run by run: {spread(ratios)}")
    print(f"files of all runs: {'identical' if is_same else 'DIFFERENT'}", flush=True)
    return is_same


# What either checkout runs: its own extraction, of a manifest with two workers, and the rate.
ONE_RATE = """
import sys
from avt_jax.data.extraction.clip_record import ExtractConfig
from avt_jax.data.extraction.extract import extract
from avt_jax.data.manifests.manifest import read_manifest
done = extract(read_manifest(sys.argv[1]), sys.argv[2], config=ExtractConfig(), num_workers=2)
assert not done.num_failed, done.num_failed
print(sum(done.num_clips.values()) / done.elapsed_sec)
"""


def compare_trees(folder: Path, manifests: list[Path], other: Path, repeats: int) -> None:
    """Prints this checkout's rate over another's, pair by pair, for each manifest."""
    trees = (Path(__file__).parents[1], other.resolve())
    for clips in manifests:
        pairs = []
        for turn in range(repeats + 1):  # the first warms up
            rates_hz = {}
            for tree in trees if turn % 2 else trees[::-1]:
                words = [sys.executable, "-c", ONE_RATE, clips, folder / "run"]
                env = {**os.environ, "PYTHONPATH": str(tree)}
                done = subprocess.run(words, env=env, cwd=tree, capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(f"{tree}: {done.stderr}")
                rates_hz[tree] = float(done.stdout)
                shutil.rmtree(folder / "run")
            pairs.append([rates_hz[tree] for tree in trees])
        ours, theirs = zip(*pairs[1:], strict=True)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        print(f"{clips.stem}: {spread(ours)} clips/s here, {spread(theirs)} there")
        print(f"{clips.stem}: here over there, pair by pair: {spread(ratios)}", flush=True)


def warm_up(folder: Path, clips: Path) -> None:
    """Reads every video once, and imports what is imported late."""
    small = folder / "warm.csv"
    lines = clips.read_text().splitlines()
    small.write_text("\n".join([lines[0], *lines[1::SPANS_PER_VIDEO]]) + "\n")
    run(small, folder / "warm", 2, 64)
    shutil.rmtree(folder / "warm")


def measure_whole(folder: Path, clips: Path, repeats: int) -> None:
    """Rate of clips as those of the usual data sets."""
    rates_hz = []
    for _ in range(repeats):
        rates_hz.append(run(clips, folder / "run", 1, 64))
        num_bytes = sum(path.stat().st_size for path in (folder / "run").glob("*.array_record-*"))
        shutil.rmtree(folder / "run")
    num_clips = len(clips.read_text().splitlines()) - 1
    print(
        f"whole clips of {VIDEO_SEC} s, 1 worker: {spread(rates_hz)} clips/s, "
        f"{num_bytes / num_clips / 1e6:.2f} MB each in the shards",
        flush=True,
    )


def command(clips: Path, out: Path, args: argparse.Namespace, *more: str) -> list[str]:
    """The command line of an extraction with two workers."""
    words = ["--manifest", clips, "--out", out, "--workers", 2, *more]
    words += ["--clips-per-shard", args.clips_per_shard]
    return [sys.executable, "-m", "avt_jax.cli.data.extract", *map(str, words)]


def kill_twice(folder: Path, clips: Path, args: argparse.Namespace) -> bool:
    """Kills two runs in the middle; the third must end with the files of a run left alone."""
    out = folder / "killed"
    num_shards = len(list((folder / "whole").glob("*.array_record-*")))
    done = []
    for wanted in (num_shards // 3, num_shards * 2 // 3):
        process = subprocess.Popen(command(clips, out, args), stdout=subprocess.DEVNULL)
        while process.poll() is None and num_finished(out) < wanted:
            time.sleep(0.01)
        process.kill()
        process.wait()
        done.append(num_finished(out))
    if out.exists():
        print("\nthe run ended before it could be killed: give more --clips")
        return False
    subprocess.run(command(clips, out, args), check=True, stdout=subprocess.DEVNULL)
    is_same = digests(out) == digests(folder / "whole")
    shutil.rmtree(out)
    print(
        f"\nkilled with {done[0]} and with {done[1]} of {num_shards} shards finished, restarted: "
        f"files {'identical to' if is_same else 'DIFFERENT from'} an uninterrupted run's",
        flush=True,
    )
    return is_same


def num_finished(out: Path) -> int:
    """Number of finished shards of an unfinished run."""
    return len(list(work_folder.work_path(out).glob("*.part-*.json")))


def compare_beam(folder: Path, clips: Path, args: argparse.Namespace) -> bool:
    """The same files from Beam's DirectRunner, whose speed is told as well."""
    if importlib.util.find_spec("apache_beam") is None:
        print("Beam is not installed: not compared")
        return True
    out = folder / "beam"
    started = time.perf_counter()
    words = command(clips, out, args, "--runner", "beam")
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    elapsed_sec = time.perf_counter() - started
    is_same = digests(out) == digests(folder / "whole")
    shutil.rmtree(out)
    print(
        f"Beam {metadata.version('apache-beam')}, DirectRunner, 2 processes: {elapsed_sec:.1f} s "
        f"({args.clips / elapsed_sec:.1f} clips/s with starting); files "
        f"{'identical' if is_same else 'DIFFERENT'}",
        flush=True,
    )
    return is_same


def measure_seeking(folder: Path) -> None:
    """What a span costs at both ends of a long video."""
    path = folder / "long.mp4"
    num_frames = LONG_SEC * FRAME_RATE_HZ
    pictures = draw(0, num_frames, 96, 128)
    bar = tqdm.tqdm(pictures, total=num_frames, desc="long video", unit="frame")
    render(path, bar, FRAME_RATE_HZ, LONG_KEY_FRAME_SEC, seed=0)
    costs_sec: dict[float, list[float]] = {}
    for _ in range(9):
        # As far behind a key frame in both places: what lies between must be decoded anyway.
        for start_sec in (LONG_KEY_FRAME_SEC + 1.0, LONG_SEC - 2 * LONG_KEY_FRAME_SEC + 1.0):
            started = time.perf_counter()
            end_sec = start_sec + LONG_SPAN_SEC
            make_record(path, start_sec, end_sec, config=ExtractConfig(), id="i", source="s")
            costs_sec.setdefault(start_sec, []).append(time.perf_counter() - started)
    print(f"\na video of {LONG_SEC} s with a key frame every {LONG_KEY_FRAME_SEC} s:")
    for start_sec, values in costs_sec.items():
        print(
            f"span of {LONG_SPAN_SEC:g} s from {start_sec:g} s: "
            f"{spread([1000 * value for value in values])} ms"
        )
    first, last = (statistics.median(values) for values in costs_sec.values())
    print(f"near the end against near the start: {last / first:.2f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
