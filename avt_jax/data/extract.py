"""From the videos of a manifest to a folder of shards."""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import fcntl
import functools
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tqdm

from avt_jax.data import decode, worker_pool
from avt_jax.data.clip_record import ExtractConfig, make_record
from avt_jax.data.manifest import Clip, Manifest
from avt_jax.data.records import SPLITS
from avt_jax.errors import UserError

FAILED_FILE = "failed.csv"

_LOCK_FILE = ".avt-extract-lock"


@dataclasses.dataclass(frozen=True)
class Failure:
    """A clip that could not be stored, as in `failed.csv`.

    Attributes:
      clip: the manifest's line.
      reason: one of `decode.REASON_CODES`, "worker_died" or "unexpected".
      message: one sentence.
    """

    clip: Clip
    reason: str
    message: str


@dataclasses.dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did.

    Attributes:
      num_clips: clips written per split.
      num_without_audio: of these, clips without sound, per split.
      clip_sec: total length of the clips per split, in seconds.
      failures: clips that were left out, in manifest order.
      num_bytes: size of all records.
      elapsed_sec: wall-clock time.
    """

    num_clips: dict[str, int]
    num_without_audio: dict[str, int]
    clip_sec: dict[str, float]
    failures: tuple[Failure, ...]
    num_bytes: int
    elapsed_sec: float


def _try_record(clip: Clip, *, config: ExtractConfig) -> dict[str, Any] | Failure:
    """`make_record` with every error as a value: one bad file must not end the job."""
    try:
        return make_record(
            clip.path,
            clip.start_sec,
            clip.end_sec,
            config=config,
            id=clip.id,
            source=clip.source,
        )
    except decode.DecodeError as error:
        return Failure(clip, error.reason_code, error.message)
    except Exception as error:  # whatever a hostile file provokes in a codec
        return Failure(clip, "unexpected", f"{type(error).__name__}: {error}")


def extract(
    manifest: Manifest,
    out: str | os.PathLike,
    *,
    config: ExtractConfig,
    num_workers: int | None = None,
    max_shard_mb: float = 256.0,
) -> ExtractSummary:
    """Decodes every clip of a manifest into a new shard folder, with a progress bar on stderr.

    Everything is written to `<out>.incomplete-<process>` and renamed at the end. Records keep the
    manifest's order whatever the number of workers.

    Args:
      manifest: the clips.
      out: folder to create; may exist if it is empty.
      config: how clips are stored.
      num_workers: processes that decode; None is one per core.
      max_shard_mb: > 0, size in MiB at which a new shard is begun.

    Returns:
      What was written and what was left out.

    Raises:
      UserError: `out` is in use or cannot be written, or no clip at all could be decoded.
    """
    num_workers = worker_pool.default_num_workers() if num_workers is None else num_workers
    if num_workers < 1:
        raise UserError(f"{num_workers} workers cannot decode anything; give 1 or more.")
    if not max_shard_mb > 0:
        raise UserError(f"max_shard_mb {max_shard_mb:g} must be more than 0.")
    started = time.monotonic()
    with _new_folder(Path(out)) as folder:
        summary = _write_records(manifest, folder, config, num_workers, max_shard_mb)
        _write_failures(folder / FAILED_FILE, summary.failures)
    return dataclasses.replace(summary, elapsed_sec=time.monotonic() - started)


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes `out` when the body ends without an error."""
    out = out.absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty folder; delete it or choose another.")
    folder = out.with_name(f"{out.name}.incomplete-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(out)
        folder.mkdir()
        lock = open(folder / _LOCK_FILE, "wb")  # noqa: SIM115 - held until the rename
    except OSError as error:
        raise UserError(f"cannot create {folder}: {error.strerror}.") from error
    try:
        with lock:
            # The lock goes with the process, however it ends: that is how a dead run is known.
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
            (folder / _LOCK_FILE).unlink()
            os.rename(folder, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_stale(out: Path) -> None:
    """Deletes what runs that were killed left behind; folders of living runs are locked."""
    prefix = f"{out.name}.incomplete-"
    for folder in [p for p in out.parent.iterdir() if p.name.startswith(prefix) and p.is_dir()]:
        lock = folder / _LOCK_FILE
        if not lock.exists():
            # Killed between making the folder and the lock, or not ours: only if nothing is in it.
            with contextlib.suppress(OSError):
                folder.rmdir()
            continue
        with open(lock, "wb") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def _write_records(
    manifest: Manifest,
    folder: Path,
    config: ExtractConfig,
    num_workers: int,
    max_shard_mb: float,
) -> ExtractSummary:
    # Imported here: TFDS takes seconds, and the decoding processes import this module too.
    from avt_jax.data.record_writer import RecordWriter

    writer = RecordWriter(
        folder,
        label_sets=manifest.label_sets,
        frame_rate_hz=config.frame_rate_hz,
        short_side_px=config.short_side_px,
        jpeg_quality=config.jpeg_quality,
        max_shard_bytes=int(max_shard_mb * 2**20),
    )
    num_clips: collections.Counter[str] = collections.Counter()
    num_silent: collections.Counter[str] = collections.Counter()
    clip_sec: collections.Counter[str] = collections.Counter()
    failures = []
    results = worker_pool.ordered_map(
        functools.partial(_try_record, config=config), manifest.clips, num_workers=num_workers
    )
    with contextlib.closing(results), _progress(len(manifest.clips)) as bar:
        for clip, result in results:
            if isinstance(result, worker_pool.WorkerDied):
                result = Failure(clip, "worker_died", str(result))
            if isinstance(result, Failure):
                failures.append(result)
                bar.set_postfix(failed=len(failures), refresh=False)
            else:
                writer.add(clip.split, result | {"labels": clip.labels})
                num_clips[clip.split] += 1
                num_silent[clip.split] += not result["has_audio"]
                clip_sec[clip.split] += result["end_sec"] - result["start_sec"]
            bar.update()
    if not num_clips:
        raise UserError(_all_failed_message(manifest, failures))
    writer.close()
    splits = [split for split in SPLITS if split in num_clips]
    return ExtractSummary(
        num_clips={split: num_clips[split] for split in splits},
        num_without_audio={split: num_silent[split] for split in splits},
        clip_sec={split: clip_sec[split] for split in splits},
        failures=tuple(failures),
        num_bytes=writer.num_bytes,
        elapsed_sec=0.0,
    )


def _progress(total: int) -> tqdm.tqdm:
    # In a log file a line every ten seconds is enough.
    interval_sec = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm.tqdm(
        total=total, desc="extracting", unit="clip", mininterval=interval_sec, smoothing=0.1
    )


def _all_failed_message(manifest: Manifest, failures: list[Failure]) -> str:
    reasons = collections.Counter(failure.reason for failure in failures).most_common()
    counts = ", ".join(f"{reason} {count}" for reason, count in reasons)
    return (
        f"none of the {len(failures)} clips of {manifest.path} could be decoded ({counts}); "
        f"the first: {failures[0].message}."
    )


def _write_failures(path: Path, failures: tuple[Failure, ...]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "start_sec", "end_sec", "reason", "message"])
        for failure in failures:
            clip = failure.clip
            end = "" if clip.end_sec is None else clip.end_sec
            writer.writerow([clip.source, clip.start_sec, end, failure.reason, failure.message])
