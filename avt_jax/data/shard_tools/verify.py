"""Reads everything in a shard folder again and names what is damaged."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from avt_jax.data import records
from avt_jax.data.records.shards import Shard, ShardReader, list_shards
from avt_jax.data.shard_tools.check_record import check_record
from avt_jax.errors import first_line
from avt_jax.host.checksum import sha256_of
from avt_jax.host.progress import progress_bar
from avt_jax.host.worker_pool import WorkerDied, ordered_map

# Records that a worker checks at a time.
_CHUNK = 32
_MAX_TEXT_BYTES = 64 * 2**20
_FEATURES_FILE = "features.json"


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


def verify_folder(
    path: str | os.PathLike[str],
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

    for problem in _check_description(Path(path), info, shards):
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


def _check_description(
    folder: Path, info: records.RecordsInfo, shards: tuple[Shard, ...]
) -> Iterator[Problem]:
    """Compares what the folder says in several places; TFDS alone reads two of them."""
    features = records.record_features(
        info.label_sets, schema_version=info.schema_version, multi_label=info.multi_label
    )
    try:
        stored = json.loads(_read_small(folder / _FEATURES_FILE))
        if stored["featuresDict"]["features"].keys() != features.keys():
            yield Problem(_FEATURES_FILE, None, "names other fields than the records have")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        yield Problem(_FEATURES_FILE, None, f"cannot be read ({first_line(error)})")
    for name, classes in info.label_sets.items():
        path = folder / f"labels-{name}.labels.txt"
        try:
            if _read_small(path).removesuffix("\n").split("\n") != list(classes):
                yield Problem(path.name, None, "has other classes than metadata.json")
        except (OSError, ValueError) as error:
            yield Problem(path.name, None, f"cannot be read ({first_line(error)})")
    expected = {shard.path.name for shard in shards}
    there = {path.name for path in folder.glob(f"{records.DATASET_NAME}-*.array_record-*")}
    for name in sorted(there - expected):
        yield Problem(name, None, "dataset_info.json knows no such shard")


def _read_small(path: Path) -> str:
    if path.stat().st_size > _MAX_TEXT_BYTES:
        raise ValueError(f"larger than {_MAX_TEXT_BYTES} bytes")
    return path.read_text(encoding="utf-8")


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
    with contextlib.closing(results), progress_bar(total, "checksums", "B") as bar:
        for task, found in results:
            if isinstance(found, WorkerDied):
                found = dataclasses.replace(task, complaint="takes the process down that opens it")
            for message in _file_complaints(found, digests, bool(complaint)):
                note(Problem(found.shard.path.name, None, message))
            files.append(found)
            bar.update(found.shard.path.stat().st_size)
    return files


def _read_checksums(path: Path) -> tuple[dict[str, str], str | None]:
    """({file name: SHA-256}, what is wrong with the file of checksums)."""
    digests: dict[str, str] = {}
    try:
        lines = _read_small(path).splitlines()
    except (OSError, ValueError) as error:
        return digests, f"cannot be read ({first_line(error)})"
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+)", line)
        if not match:
            return digests, f"has a damaged line {line[:80]!r}"
        digests[match[2]] = match[1]
    return digests, None


def _look_at_file(task: _File) -> _File:
    """Runs in a worker."""
    found = dataclasses.replace(task, digest=sha256_of(task.shard.path))
    if not task.opens:
        return found
    try:
        num_records = len(ShardReader(task.shard.path, task.info))
        return dataclasses.replace(found, num_records=num_records)
    except Exception as error:  # whatever a damaged file provokes in the reader
        return dataclasses.replace(found, complaint=f"cannot be opened ({first_line(error)})")


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
        _Part(file.shard, info, first, min(first + _CHUNK, count))
        for file in files
        # What a damaged index claims beyond the expected number is not part of the data.
        for count in [min(file.num_records, file.shard.num_records)]
        for first in range(0, count, _CHUNK)
    ]
    first_seen: dict[str, str] = {}
    results = ordered_map(_check_part, parts, num_workers=num_workers)
    total = sum(part.end - part.first for part in parts)
    with contextlib.closing(results), progress_bar(total, "records", "clip") as bar:
        for part, found in results:
            name = part.shard.path.name
            if isinstance(found, WorkerDied):
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
        if isinstance(result, WorkerDied):
            result = [(None, ["takes the process down that reads it"])]
        found += result
    return found


def _check_part(part: _Part) -> _Found:
    """Runs in a worker; (id, complaints) of every record."""
    try:
        reader = ShardReader(part.shard.path, part.info)
    except Exception as error:  # it could be opened a moment ago
        return [(None, [f"cannot be opened ({first_line(error)})"])] * (part.end - part.first)
    return [_check_one(reader, part.info, index) for index in range(part.first, part.end)]


def _check_one(
    reader: ShardReader, info: records.RecordsInfo, index: int
) -> tuple[str | None, list[str]]:
    try:
        record = reader.read(index)
    except Exception as error:  # whatever damaged bytes provoke in the parser
        return None, [f"cannot be read ({first_line(error)})"]
    try:
        return record["id"] or None, check_record(record, info)
    except Exception as error:  # values of types that no check expects
        return None, [f"cannot be checked ({first_line(error)})"]
