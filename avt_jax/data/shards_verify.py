"""Reads everything in a shard folder again and names what is damaged."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from avt_jax.data import records, worker_pool
from avt_jax.data.augment_video import frame_shape
from avt_jax.data.config import FBANK_RATE_HZ
from avt_jax.data.shards import Shard, ShardReader, list_shards, ordered_map, progress, ranges

# Records that a worker checks at a time.
_CHUNK = 32
_MAX_CHECKSUM_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something damaged.

    Attributes:
      file: name of the shard or of another file of the folder.
      index: of the damaged record in its shard; None: the file itself.
      message: what is wrong.
    """

    file: str
    index: int | None
    message: str

    def __str__(self) -> str:
        where = self.file if self.index is None else f"{self.file} record {self.index}"
        return f"{where}: {self.message}"


@dataclasses.dataclass(frozen=True)
class VerifyReport:
    """What was looked at and what was found.

    Attributes:
      info: the folder's own description.
      num_shards: shards that should be there.
      num_records: records read; 0 after a quick look.
      num_bytes: size of the shards that are there.
      problems: what is damaged: files first, then records in their order.
      elapsed_sec: wall-clock time.
    """

    info: records.RecordsInfo
    num_shards: int
    num_records: int
    num_bytes: int
    problems: tuple[Problem, ...]
    elapsed_sec: float


@dataclasses.dataclass(frozen=True)
class _File:
    """What is to be found out about one shard file, and then what was found."""

    shard: Shard
    info: records.RecordsInfo
    opens: bool
    digest: str | None = None
    num_records: int = 0
    complaint: str | None = None


@dataclasses.dataclass(frozen=True)
class _Part:
    """Records [first, end) of a shard file, to be checked."""

    shard: Shard
    info: records.RecordsInfo
    first: int
    end: int


def verify(
    path: str | os.PathLike,
    *,
    num_workers: int | None = None,
    quick: bool = False,
    on_problem: Callable[[Problem], Any] = lambda problem: None,
) -> VerifyReport:
    """Compares checksums and counts, reads every record and decodes every frame.

    Damage is reported and passed over. Progress is shown on stderr.

    Args:
      path: shard folder.
      num_workers: processes that read; None is one per core, 0 none but this one.
      quick: compare checksums only.
      on_problem: called with each problem as it is found.

    Returns:
      What was found.

    Raises:
      UserError: not a shard folder, or one whose description cannot be read.
    """
    started = time.monotonic()
    info = records.read_info(path)
    shards = list_shards(path)
    problems: list[Problem] = []

    def note(problem: Problem) -> None:
        problems.append(problem)
        on_problem(problem)

    for problem in _check_names(Path(path), shards):
        note(problem)
    files = _check_files(Path(path), shards, info, num_workers, opens=not quick, note=note)
    readable = [] if quick else [f for f in files if f.num_records]
    num_records = _check_records(readable, info, num_workers, note)
    return VerifyReport(
        info=info,
        num_shards=len(shards),
        num_records=num_records,
        num_bytes=sum(s.path.stat().st_size for s in shards if s.path.is_file()),
        problems=tuple(problems),
        elapsed_sec=time.monotonic() - started,
    )


def _check_names(folder: Path, shards: tuple[Shard, ...]) -> Iterator[Problem]:
    expected = {shard.path.name for shard in shards}
    there = {path.name for path in folder.glob(f"{records.DATASET_NAME}-*.array_record-*")}
    for name in sorted(there - expected):
        yield Problem(name, None, "dataset_info.json knows no such shard")


def _check_files(
    folder: Path,
    shards: tuple[Shard, ...],
    info: records.RecordsInfo,
    num_workers: int | None,
    *,
    opens: bool,
    note: Callable[[Problem], None],
) -> list[_File]:
    """Compares checksums and counts; returns what is known of each file that is there."""
    digests, complaint = _read_checksums(folder / records.CHECKSUM_FILE)
    if complaint:
        note(Problem(records.CHECKSUM_FILE, None, complaint))
    for name in sorted(digests.keys() - {shard.path.name for shard in shards}):
        note(Problem(records.CHECKSUM_FILE, None, f"names {name}, no shard of this folder"))
    tasks = []
    for shard in shards:
        if shard.path.is_file():
            tasks.append(_File(shard, info, opens))
        else:
            note(Problem(shard.path.name, None, f"is missing, with {shard.num_records} records"))
    files = []
    total = sum(task.shard.path.stat().st_size for task in tasks)
    results = ordered_map(_look_at_file, tasks, num_workers=num_workers)
    with contextlib.closing(results), progress(total, "checksums", "B") as bar:
        for task, found in results:
            if isinstance(found, worker_pool.WorkerDied):
                found = dataclasses.replace(task, complaint="takes the process down that opens it")
            for message in _file_complaints(found, digests, bool(complaint)):
                note(Problem(found.shard.path.name, None, message))
            files.append(found)
            bar.update(found.shard.path.stat().st_size)
    return files


def _read_checksums(path: Path) -> tuple[dict[str, str], str | None]:
    """({file name: SHA-256}, what is wrong with the file of checksums)."""
    if not path.is_file():
        return {}, "is missing"
    if path.stat().st_size > _MAX_CHECKSUM_BYTES:
        return {}, f"is larger than {_MAX_CHECKSUM_BYTES} bytes"
    digests = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+)", line)
        if not match:
            return digests, f"has a damaged line {line[:80]!r}"
        digests[match[2]] = match[1]
    return digests, None


def _look_at_file(task: _File) -> _File:
    """Runs in a worker."""
    found = dataclasses.replace(task, digest=records.sha256_of(task.shard.path))
    if not task.opens:
        return found
    try:
        num_records = len(ShardReader(task.shard.path, task.info))
        return dataclasses.replace(found, num_records=num_records)
    except Exception as error:  # whatever a damaged file provokes in the reader
        return dataclasses.replace(found, complaint=f"cannot be opened ({_first_line(error)})")


def _file_complaints(
    found: _File, digests: Mapping[str, str], is_list_damaged: bool
) -> Iterator[str]:
    expected = digests.get(found.shard.path.name)
    if expected is None and not is_list_damaged:
        yield f"has no line in {records.CHECKSUM_FILE}"
    if expected is not None and found.digest is not None and expected != found.digest:
        yield "has changed since it was written (checksum)"
    if found.complaint:
        yield found.complaint
    elif found.opens and found.num_records != found.shard.num_records:
        yield f"has {found.num_records} records, dataset_info.json says {found.shard.num_records}"


def _check_records(
    files: list[_File],
    info: records.RecordsInfo,
    num_workers: int | None,
    note: Callable[[Problem], None],
) -> int:
    """Checks the records of the files; returns how many there are."""
    if not files:
        return 0
    parts = [
        _Part(file.shard, info, first, end)
        for file in files
        # What a damaged index claims beyond the expected number is not part of the data.
        for first, end in ranges(min(file.num_records, file.shard.num_records), _CHUNK)
    ]
    first_seen: dict[str, str] = {}
    results = ordered_map(_check_part, parts, num_workers=num_workers)
    total = sum(part.end - part.first for part in parts)
    with contextlib.closing(results), progress(total, "records", "clip") as bar:
        for part, found in results:
            name = part.shard.path.name
            if isinstance(found, worker_pool.WorkerDied):
                found = _one_by_one(part)
            for index, (clip_id, complaints) in enumerate(found, part.first):
                if clip_id is not None:
                    where = first_seen.setdefault(clip_id, f"{name} record {index}")
                    if where != f"{name} record {index}":
                        complaints = [*complaints, f"its id {clip_id!r} is also that of {where}"]
                if complaints:
                    note(Problem(name, index, "; ".join(complaints)))
            bar.update(part.end - part.first)
    return total


_Found = list[tuple[str | None, list[str]]]


def _one_by_one(part: _Part) -> _Found:
    """Finds the record that took its process down, each in a process of its own."""
    singles = [dataclasses.replace(part, first=i, end=i + 1) for i in range(part.first, part.end)]
    found: _Found = []
    for _, result in ordered_map(_check_part, singles, num_workers=1):
        if isinstance(result, worker_pool.WorkerDied):
            result = [(None, ["takes the process down that reads it"])]
        found += result
    return found


def _check_part(part: _Part) -> _Found:
    """Runs in a worker; (id, complaints) of every record."""
    try:
        reader = ShardReader(part.shard.path, part.info)
    except Exception as error:  # it could be opened a moment ago
        return [(None, [f"cannot be opened ({_first_line(error)})"])] * (part.end - part.first)
    return [_check_one(reader, part.info, index) for index in range(part.first, part.end)]


def _check_one(
    reader: ShardReader, info: records.RecordsInfo, index: int
) -> tuple[str | None, list[str]]:
    try:
        record = reader.read(index)
    except Exception as error:  # whatever damaged bytes provoke in the parser
        return None, [f"cannot be read ({_first_line(error)})"]
    return record["id"] or None, check_record(record, info)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:160] or type(error).__name__


def check_record(record: Mapping[str, Any], info: records.RecordsInfo) -> list[str]:
    """Looks for everything that no extraction would have written.

    Args:
      record: as `records.open_split` gives it.
      info: of its folder.

    Returns:
      One phrase for each thing that is wrong.
    """
    complaints = [f"has no {name}" for name in ("id", "source") if not record[name]]
    start_sec, end_sec = float(record["start_sec"]), float(record["end_sec"])
    span_sec = end_sec - start_sec
    if not (math.isfinite(span_sec) and start_sec >= 0 and span_sec > 0):
        complaints.append(f"its span is {start_sec:g} to {end_sec:g} s")
        span_sec = math.inf  # no length to compare the others with
    if np.float32(record["frame_rate_hz"]) != np.float32(info.frame_rate_hz):
        complaints.append(
            f"has {record['frame_rate_hz']:g} frames per second, not {info.frame_rate_hz:g}"
        )
    most = span_sec * info.frame_rate_hz + 1
    if len(record["frames"]) > most:
        complaints.append(f"has {len(record['frames'])} frames in {span_sec:g} s")
    complaints += _frame_complaints(record["frames"], info.short_side_px)
    complaints += _fbank_complaints(record["fbank"], bool(record["has_audio"]), span_sec)
    for name, classes in info.label_sets.items():
        if not 0 <= int(record["labels"][name]) < len(classes):
            complaints.append(
                f"its {name} is class {int(record['labels'][name])} of {len(classes)}"
            )
    if _minor(info.schema_version) <= _minor(records.SCHEMA_VERSION):
        unknown = [code for code in record["flags"] if code not in records.FLAG_CODES]
        complaints += [f"has an unknown flag {code[:40]!r}" for code in unknown]
    return complaints


def _minor(version: str) -> int:
    return int(version.split(".")[1])


def _frame_complaints(frames: list[bytes], short_side_px: int) -> list[str]:
    """At most one complaint, of the first frame that deserves it."""
    if not frames:
        return ["has no frames"]
    first_size = None
    for number, jpeg in enumerate(frames):
        if number and jpeg == frames[number - 1]:
            continue
        try:
            size = frame_shape(jpeg)
            image_hwc = simplejpeg.decode_jpeg(jpeg, fastdct=True, fastupsample=True)
        except ValueError as error:
            return [f"frame {number} is not a whole JPEG ({_first_line(error)})"]
        if image_hwc.shape[:2] != size:
            return [f"frame {number} has another size than its header says"]
        first_size = first_size or size
        if size != first_size:
            return [f"frame {number} is {_size(size)} px, the first {_size(first_size)}"]
    if min(first_size) > short_side_px:
        return [f"its frames are {_size(first_size)} px with a short side of {short_side_px}"]
    return []


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _fbank_complaints(fbank_sf: np.ndarray, has_audio: bool, span_sec: float) -> list[str]:
    complaints = []
    if fbank_sf.ndim != 2 or fbank_sf.shape[1] != records.MEL_BINS:
        complaints.append(f"its fbank has the shape {fbank_sf.shape}")
    if len(fbank_sf) > span_sec * FBANK_RATE_HZ + 1:
        complaints.append(f"has {len(fbank_sf)} fbank rows in {span_sec:g} s")
    if not np.isfinite(fbank_sf).all():
        complaints.append("its fbank is not finite")
    if has_audio != (len(fbank_sf) > 0):
        complaints.append(f"has_audio is {has_audio} with {len(fbank_sf)} fbank rows")
    return complaints
