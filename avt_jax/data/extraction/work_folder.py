"""The folder in which an extraction keeps its finished shards until all are there.

`<out>.incomplete/` holds the plan and what `job` writes. At the end the shards move into
`<out>.incomplete/result/`, which is then renamed to `<out>`: that folder is complete or absent.
A run that dies leaves the folder for the next one with the same plan.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from avt_jax.data.extraction.job import ADVICE, Failure, ShardResult, read_stored_result
from avt_jax.data.extraction.plan import Plan, PlannedShard, difference
from avt_jax.data.records.schema import shard_names
from avt_jax.data.records.writer import FolderInfo, ShardInfo, write_description
from avt_jax.errors import UserError
from avt_jax.host.lock import locked
from avt_jax.host.new_files import is_partial, remove_partial, write_json
from avt_jax.host.output.cells import CellWriter

FAILED_FILE = "failed.csv"
DONE_FILE = "extract.json"

_LOCK_FILE = ".lock"
_PLAN_FILE = "plan.json"
_RESULT_FOLDER = "result"
_DATA_FILE = re.compile(r"\w+\.part-\d+-[0-9a-f]{8}")
_MAX_JSON_BYTES = 2**20


def read_finished(out: Path, plan: Plan) -> dict[str, Any] | None:
    """Looks whether an extraction has been done already.

    Args:
      out: its folder.
      plan: of the extraction.

    Returns:
      The summary that `finish` was given; None if the folder is still free.

    Raises:
      UserError: there is something else.
    """
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return None
    found = _read_json(out / DONE_FILE)
    if not isinstance(found, dict) or not isinstance(found.get("summary"), dict):
        raise UserError(f"{out} exists and is not an empty folder; delete it or choose another.")
    if found.get("plan") != plan.identity:
        differs = difference(found.get("plan"), plan.identity)
        raise UserError(
            f"{out} holds another extraction ({differs}); delete it or choose another --out."
        )
    _remove_left(work_path(out))
    return found["summary"]


def work_path(out: Path) -> Path:
    """Where an extraction to `out` keeps its finished shards."""
    return out.with_name(f"{out.name}.incomplete")


def _remove_left(folder: Path) -> None:
    """Removes what a run left behind that was killed just after it had finished."""
    if (folder / _PLAN_FILE).exists() and not (folder / _RESULT_FOLDER).exists():
        with contextlib.suppress(OSError), locked(folder / _LOCK_FILE):
            remove(folder)


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


@contextlib.contextmanager
def open_work_folder(out: Path, plan: Plan) -> Iterator[Path]:
    """Gives the folder to write the plan's shards into; it stays if the body does not finish it.

    Args:
      out: absolute path of the folder that will be made of it.
      plan: of the extraction.

    Yields:
      The folder, which no other run may use at the same time.

    Raises:
      UserError: another run uses it, it belongs to another plan, or it cannot be written.
    """
    folder = work_path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {folder}: {error.strerror}.") from error
    try:
        with _only_run(folder, out):
            _check_plan(folder, plan)
            _remove_unnamed(folder, plan)
            yield folder
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}; {ADVICE}.") from error


@contextlib.contextmanager
def _only_run(folder: Path, out: Path) -> Iterator[None]:
    """Keeps other runs out of the folder.

    Raises:
      UserError: there is one in it, or it has just ended and taken the folder away.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / _LOCK_FILE))
        except BlockingIOError:
            raise UserError(
                f"another run is writing {out}; let it end, or choose another --out."
            ) from None
        yield


def _check_plan(folder: Path, plan: Plan) -> None:
    """Writes the plan into a new folder, compares it with that of an old one."""
    path = folder / _PLAN_FILE
    if path.exists():
        found = _read_json(path)
        if found != plan.identity:
            raise UserError(
                f"{folder} holds an unfinished extraction that differs from this one "
                f"({difference(found, plan.identity)}); delete it to begin anew, or choose another "
                "--out."
            )
        return
    if any(p.name != _LOCK_FILE and not _may_be_left(p) for p in folder.iterdir()):
        raise UserError(f"{folder} is needed for unfinished shards but holds something else.")
    write_json(path, plan.identity, indent=None, durable=True, advice=ADVICE)


def _remove_unnamed(folder: Path, plan: Plan) -> None:
    """Deletes data files without a result: what the last run was writing when it was killed."""
    results = [read_stored_result(folder, shard) for shard in plan.shards]
    named = {result.file for result in results if result}
    for path in list(folder.iterdir()):
        if path.name not in named and _may_be_left(path):
            path.unlink()


def _may_be_left(path: Path) -> bool:
    """Whether a killed run may have left this file unfinished."""
    return is_partial(path) or bool(_DATA_FILE.fullmatch(path.name))


def read_result(folder: Path, shard: PlannedShard) -> ShardResult | None:
    """Reads what became of a shard; None if it is not finished.

    Args:
      folder: from `open_work_folder`.
      shard: of its plan.
    """
    result = read_stored_result(folder, shard)
    # Shards begin to move into that folder only when all of them are finished.
    if result is None or not result.file or (folder / _RESULT_FOLDER).is_dir():
        return result
    try:
        size = (folder / result.file).stat().st_size
    except FileNotFoundError:
        return None
    return result if size == result.file_bytes else None


def finish(
    folder: Path,
    out: Path,
    plan: Plan,
    results: Sequence[ShardResult],
    *,
    info: FolderInfo,
    failures: Sequence[Failure],
    summary: Mapping[str, Any],
) -> None:
    """Makes the result of the finished shards and puts it in its place. May be repeated.

    Args:
      folder: from `open_work_folder`.
      out: where the result goes.
      plan: of the extraction.
      results: one per shard of the plan.
      info: what is the same for all records.
      failures: for failed.csv.
      summary: JSON values that `read_finished` will return.
    """
    target = folder / _RESULT_FOLDER
    target.mkdir(exist_ok=True)
    files: dict[str, list[ShardResult]] = {}
    for shard, result in zip(plan.shards, results, strict=True):
        if result.file:
            files.setdefault(shard.split, []).append(result)
    for split, named in files.items():
        for name, result in zip(shard_names(split, len(named)), named, strict=True):
            if not (target / name).exists():
                os.rename(folder / result.file, target / name)
    shards = {
        split: [ShardInfo(r.num_records, r.num_bytes, r.sha256) for r in named]
        for split, named in files.items()
    }
    write_description(target, info, shards)
    _write_failures(target / FAILED_FILE, failures)
    done = {"plan": dict(plan.identity), "summary": dict(summary)}
    write_json(target / DONE_FILE, done, durable=True, advice=ADVICE)
    remove_partial(target)
    os.rename(target, out)
    shutil.rmtree(folder, ignore_errors=True)


def remove(folder: Path) -> None:
    """Gives everything up that was written so far."""
    shutil.rmtree(folder, ignore_errors=True)


def _failure_key(failure: Failure) -> tuple[str, str, str]:
    clip = failure.clip
    return clip.source, str(clip.start_sec), "" if clip.end_sec is None else str(clip.end_sec)


def _write_failures(path: Path, failures: Sequence[Failure]) -> None:
    # Messages of codecs may hold bytes of a file that are no text.
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = CellWriter(file)
        writer.row(["path", "start_sec", "end_sec", "reason", "message"])
        for failure in failures:
            writer.row([*_failure_key(failure), failure.reason, failure.message])
