"""Writes planned shards: decodes their clips in other processes and stores what comes out.

A shard is finished when its result file names its data file. Both are written under names that no
reader looks for, and the result last, so that a job that dies at any moment leaves finished shards
and rubbish, which can be told apart. Two jobs that write the same shard do not disturb each other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from avt_jax.data.extraction.clip_record import ExtractConfig, make_record
from avt_jax.data.extraction.plan import PlannedShard
from avt_jax.data.manifests.clips import Clip
from avt_jax.data.media.container import DecodeError
from avt_jax.data.records import has_video
from avt_jax.data.records.writer import ShardFile, ShardInfo, make_serializer
from avt_jax.errors import UserError, first_line
from avt_jax.host.new_files import write_json
from avt_jax.host.worker_pool import TimedOut, WorkerDied, ordered_map

RESULT_SUFFIX = ".json"
ADVICE = "finished shards are kept: make room or mend it, and give the same command again"
"""What to do when something cannot be written."""

_MAX_RESULT_BYTES = 2**28


@dataclasses.dataclass(frozen=True)
class Failure:
    """A clip that could not be stored, as in `failed.csv`.

    Attributes:
      clip: the manifest's line.
      reason: one of `container.REASON_CODES`, "timeout", "worker_died" or "unexpected".
      message: one sentence.
    """

    clip: Clip
    reason: str
    message: str


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """What is needed to write shards, besides their clips. Picklable.

    Attributes:
      label_sets: class names per label set.
      config: how clips are stored.
      clip_timeout_sec: > 0, a clip that takes longer to decode fails.
      multi_label: the label sets of which a clip may have any number of classes.
    """

    label_sets: dict[str, tuple[str, ...]]
    config: ExtractConfig
    clip_timeout_sec: float
    multi_label: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What became of a shard's clips.

    Attributes:
      file: name of the data file; "" if no clip could be stored.
      file_bytes: its size.
      num_records: clips stored.
      num_bytes: size of their records.
      sha256: of the file.
      num_without_audio: of the clips stored.
      clip_sec: their total length in seconds.
      failures: [index within the shard, reason, message] of the others.
      num_without_video: of the clips stored.
    """

    file: str
    file_bytes: int
    num_records: int
    num_bytes: int
    sha256: str
    num_without_audio: int
    clip_sec: float
    failures: list[tuple[int, str, str]]
    num_without_video: int = 0

    def failed(self, shard: PlannedShard) -> list[Failure]:
        """The clips that were left out, in order."""
        return [Failure(shard.clips[i], reason, message) for i, reason, message in self.failures]


OnClips = Callable[[int, int], None]
"""Is told (clips done, of which failed) since the last call."""


def try_record(clip: Clip, *, config: ExtractConfig) -> dict[str, Any] | Failure:
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
    except DecodeError as error:
        return Failure(clip, error.reason_code, error.message)
    except Exception as error:  # whatever a hostile file provokes in a codec
        return Failure(clip, "unexpected", f"{type(error).__name__}: {error}")


def write_shards(
    folder: Path,
    shards: Sequence[PlannedShard],
    job: ShardJob,
    *,
    num_workers: int | None,
    on_clips: OnClips = lambda num_done, num_failed: None,
) -> None:
    """Writes shards one after the other; whatever file a clip comes from, it ends its own clip.

    Args:
      folder: where to; it exists.
      shards: which.
      job: how.
      num_workers: >= 1, processes that decode; None is one per core.
      on_clips: called for every clip.

    Raises:
      UserError: a shard cannot be written.
    """
    serialize = make_serializer(job.label_sets, job.multi_label)
    clips = itertools.chain.from_iterable(shard.clips for shard in shards)
    with contextlib.closing(_decode(clips, job, num_workers)) as results:
        for shard in shards:
            own = itertools.islice(results, len(shard.clips))
            _write_shard(folder, shard, own, serialize, on_clips)


def _decode(
    clips: Iterable[Clip], job: ShardJob, num_workers: int | None
) -> Generator[tuple[Clip, dict[str, Any] | Failure], None, None]:
    results = ordered_map(
        functools.partial(try_record, config=job.config),
        clips,
        num_workers=num_workers,
        time_limit_sec=job.clip_timeout_sec,
    )
    with contextlib.closing(results):
        for clip, result in results:
            if isinstance(result, WorkerDied):
                result = Failure(clip, "worker_died", str(result))
            elif isinstance(result, TimedOut):
                result = Failure(clip, "timeout", str(result))
            yield clip, result


def _write_shard(
    folder: Path,
    shard: PlannedShard,
    results: Iterable[tuple[Clip, dict[str, Any] | Failure]],
    serialize: Callable[[dict[str, Any]], bytes],
    on_clips: OnClips,
) -> None:
    failures: list[tuple[int, str, str]] = []
    num_without_audio = num_without_video = 0
    clip_sec = 0.0
    # Nobody else writes to this name, be it the same shard.
    path = folder / f"{shard.name}-{secrets.token_hex(4)}"
    data_file = None
    try:
        for index, (clip, result) in enumerate(results):
            if isinstance(result, Failure):
                failures.append((index, result.reason, result.message))
            else:
                with _write_errors(path):
                    data_file = data_file or ShardFile(path)
                    data_file.add(serialize(result | {"labels": clip.labels}))
                num_without_audio += not result["has_audio"]
                num_without_video += not has_video(result)
                clip_sec += result["end_sec"] - result["start_sec"]
            on_clips(1, int(isinstance(result, Failure)))
        with _write_errors(path):
            info = data_file.close() if data_file else ShardInfo(0, 0, "")
            stored = ShardResult(
                file=path.name if data_file else "",
                file_bytes=path.stat().st_size if data_file else 0,
                num_without_audio=num_without_audio,
                num_without_video=num_without_video,
                clip_sec=clip_sec,
                failures=failures,
                **dataclasses.asdict(info),
            )
            write_json(
                _result_path(folder, shard), vars(stored), indent=None, durable=True, advice=ADVICE
            )
    except BaseException:
        if data_file:
            data_file.discard()
        raise


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"cannot write {path}: {reason}; {ADVICE}.") from error


def _result_path(folder: Path, shard: PlannedShard) -> Path:
    return folder / (shard.name + RESULT_SUFFIX)


def read_stored_result(folder: Path, shard: PlannedShard) -> ShardResult | None:
    """Reads what became of a shard.

    Args:
      folder: where it was written.
      shard: which.

    Returns:
      None if it is not finished.
    """
    path = _result_path(folder, shard)
    try:
        if path.stat().st_size > _MAX_RESULT_BYTES:
            return None
        result = ShardResult(**json.loads(path.read_text(encoding="utf-8")))
        if len(result.failures) + result.num_records != len(shard.clips):
            return None
        if result.file and Path(result.file).name != result.file:
            return None
        return dataclasses.replace(result, failures=[(i, r, m) for i, r, m in result.failures])
    except (OSError, ValueError, TypeError):
        return None  # it will be written again
