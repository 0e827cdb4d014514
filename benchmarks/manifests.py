"""Reading large manifests: seconds (wall clock and CPU) and peak memory of each part.

    python benchmarks/manifests.py --rows 1000000

makes a manifest of that many rows of different files, a class list of 20 000 names and an
annotation file of VGGSound's form with 300 000 rows and 30 000 (empty) videos, in a temporary
folder. Each task runs in a process of its own.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
NUM_CLASSES, NUM_NAMES, NUM_ANNOTATIONS, NUM_VIDEOS = 400, 20_000, 300_000, 30_000


def make_files(folder: Path, num_rows: int) -> None:
    """Writes what the tasks read."""
    rng = random.Random(0)

    def name() -> str:
        return "".join(rng.choices(LETTERS, k=11))

    with open(folder / "clips.csv", "w", encoding="utf-8") as file:
        file.write("path,start_sec,end_sec,label,split\n")
        for row in range(num_rows):
            start = rng.randrange(300)
            split = rng.choices(["train", "val", "test"], [8, 1, 1])[0]
            label = f"class {rng.randrange(NUM_CLASSES):03d}"
            file.write(
                f"videos/{row % 1000:03d}/{name()}.mp4,{start},{start + 10},{label},{split}\n"
            )
    (folder / "classes.txt").write_text("".join(f"class {i:05d}\n" for i in range(NUM_NAMES)))
    step = NUM_ANNOTATIONS // NUM_VIDEOS
    with open(folder / "vggsound.csv", "w", encoding="utf-8") as file:
        for row in range(NUM_ANNOTATIONS):
            video, start = name(), rng.randrange(400)
            split = "test" if row % 13 == 0 else "train"
            file.write(f"{video},{start},sound {rng.randrange(309)},{split}\n")
            if row % step == 0:
                place = folder / "vggsound" / f"{row // step % 100:02d}"
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{video}_{start:06d}.mp4").write_bytes(b"")


class Laps:
    """Prints the seconds since the last one."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def done(self, what: str) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{what:<42}{wall - self._wall:8.2f}{cpu - self._cpu:8.2f}{peak:10.0f}", flush=True)
        self._wall, self._cpu = time.perf_counter(), time.process_time()


def start_extraction(folder: Path, laps: Laps) -> None:
    """All that `avt extract` does before it decodes the first clip."""
    from avt_jax.data.doctor.check import check_manifest
    from avt_jax.data.extraction import work_folder
    from avt_jax.data.extraction.clip_record import ExtractConfig
    from avt_jax.data.extraction.plan import make_plan
    from avt_jax.data.manifests.manifest import read_manifest

    laps.done("imports")
    manifest = read_manifest(folder / "clips.csv")
    laps.done(f"manifest of {len(manifest.clips)} rows: read")
    check_manifest(manifest)
    laps.done("  looked at for mistakes")
    plan = make_plan(manifest, ExtractConfig(), 128)
    laps.done("  planned")
    with work_folder.open_work_folder(folder / "out", plan) as work:
        todo = [one for one in plan.shards if work_folder.read_result(work, one) is None]
        next(iter(todo[0].clips))
        laps.done("  started, to the first clip")


def read_list(folder: Path, laps: Laps) -> None:
    """Reads the class list."""
    from avt_jax.data.manifests.manifest import read_classes

    laps.done("imports")
    number = len(read_classes(folder / "classes.txt"))
    laps.done(f"class list of {number} names")


def join_annotations(folder: Path, laps: Laps) -> None:
    """`avt manifest vggsound`, without its start and what it prints."""
    from avt_jax.data.manifests.catalog.build import manifest_from_annotations
    from avt_jax.data.manifests.catalog.entries import get_data_set

    laps.done("imports")
    manifest_from_annotations(
        get_data_set("vggsound"),
        [("", folder / "vggsound.csv")],
        folder / "vggsound",
        folder / "joined.csv",
    )
    laps.done(f"vggsound: {NUM_ANNOTATIONS} rows, {NUM_VIDEOS} files")


TASKS = {"extract": start_extraction, "classes": read_list, "vggsound": join_annotations}


def main() -> None:
    """Runs the tasks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--task", nargs=2, metavar=("NAME", "FOLDER"), help="one of them alone")
    args = parser.parse_args()
    if args.task:
        TASKS[args.task[0]](Path(args.task[1]), Laps())
        return
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), args.rows)
        print(f"{'':<42}{'wall s':>8}{'CPU s':>8}{'peak MB':>10}", flush=True)
        for name in TASKS:
            subprocess.run([sys.executable, __file__, "--task", name, folder], check=True)


if __name__ == "__main__":
    main()
