"""From the videos of a manifest to a folder of shards."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from avt_jax.data.extraction import work_folder
from avt_jax.data.extraction.clip_record import ExtractConfig
from avt_jax.data.extraction.job import Failure, OnClips, ShardJob, ShardResult, write_shards
from avt_jax.data.extraction.plan import Plan, PlannedShard, make_plan
from avt_jax.data.manifests.manifest import Manifest
from avt_jax.data.records import SPLITS
from avt_jax.data.records.writer import FolderInfo
from avt_jax.errors import UserError
from avt_jax.host.progress import progress_bar

# Ten seconds of any usual video take a few seconds, and the longest clip allowed by default, ten
# minutes, a minute or two. A clip that needs more does not end at all, or is not worth it.
CLIP_TIMEOUT_SEC = 300.0
# A shard of 10-s clips is then about 100 MB and a few tens of seconds of one core: little is lost
# with an unfinished one, and a million clips make 8000 files.
CLIPS_PER_SHARD = 128

Runner = Callable[[Path, Sequence[PlannedShard], ShardJob, OnClips], None]
"""Writes shards into a folder: as `job.write_shards`, by whatever machines it has."""


@dataclasses.dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did.

    Attributes:
      num_clips: clips written per split.
      num_without_audio: of these, clips without sound, per split.
      clip_sec: total length of the clips per split, in seconds.
      num_failed: clips left out, per split; failed.csv says why.
      num_bytes: size of all records.
      num_before: clips, stored or failed, that an earlier run had done already.
      elapsed_sec: wall-clock time of this run.
      num_without_video: of the clips written, those of sound alone, per split.
    """

    num_clips: dict[str, int]
    num_without_audio: dict[str, int]
    clip_sec: dict[str, float]
    num_failed: dict[str, int]
    num_bytes: int
    num_before: int
    elapsed_sec: float
    # Extractions that were finished before there was such a clip do not name it.
    num_without_video: dict[str, int] = dataclasses.field(default_factory=dict)


def run_in_pool(
    folder: Path,
    shards: Sequence[PlannedShard],
    job: ShardJob,
    on_clips: OnClips,
    *,
    num_workers: int | None = None,
) -> None:
    """The runner of one machine: processes decode, this one writes.

    Args:
      folder: see `Runner`.
      shards: see `Runner`.
      job: see `Runner`.
      on_clips: see `Runner`.
      num_workers: processes; None is one per core.

    Raises:
      UserError: fewer than one worker, or a shard cannot be written.
    """
    write_shards(folder, shards, job, num_workers=num_workers, on_clips=on_clips)


def extract(
    manifest: Manifest,
    out: str | os.PathLike[str],
    *,
    config: ExtractConfig,
    num_workers: int | None = None,
    clips_per_shard: int = CLIPS_PER_SHARD,
    clip_timeout_sec: float = CLIP_TIMEOUT_SEC,
    runner: Runner | None = None,
) -> ExtractSummary:
    """Decodes every clip of a manifest into a new shard folder, with a progress bar on stderr.

    Shards are kept in `<out>.incomplete` until all are finished. A run that was ended by anything
    is continued by the same call, which does not repeat finished shards. Which clips are in a shard
    and what its bytes are depends on the manifest, the videos and the options named `config` and
    `clips_per_shard` alone.

    Args:
      manifest: the clips.
      out: folder to create; may exist if it is empty, or the result of this very extraction.
      config: how clips are stored.
      num_workers: processes that decode; None is one per core.
      clips_per_shard: >= 1.
      clip_timeout_sec: > 0, a clip that takes longer to decode is left out.
      runner: who does it instead of processes on this machine; `num_workers` is then not used.

    Returns:
      What was written and what was left out.

    Raises:
      UserError: `out` is in use or cannot be written, or no clip at all could be decoded.
    """
    if num_workers is not None and num_workers < 1:
        raise UserError(f"{num_workers} workers cannot decode anything; give 1 or more.")
    if not 0 < clip_timeout_sec < math.inf:
        raise UserError(f"clip_timeout_sec {clip_timeout_sec:g} must be positive and finite.")
    started = time.monotonic()
    out = Path(out).absolute()
    plan = make_plan(manifest, config, clips_per_shard)
    finished = work_folder.read_finished(out, plan)
    if finished is not None:
        return _finished_summary(finished, plan, out)
    job = ShardJob(manifest.label_sets, config, clip_timeout_sec, manifest.multi_label)
    runner = runner or functools.partial(run_in_pool, num_workers=num_workers)
    with work_folder.open_work_folder(out, plan) as folder:
        if os.path.lexists(out / work_folder.DONE_FILE):
            work_folder.remove(folder)
            raise UserError(f"{out} was finished by another run in this moment.")
        num_before = _write_missing(folder, plan, job, runner)
        summary = _finish(folder, out, plan, job, _read_results(folder, plan), manifest)
    return dataclasses.replace(
        summary, num_before=num_before, elapsed_sec=time.monotonic() - started
    )


def _write_missing(folder: Path, plan: Plan, job: ShardJob, runner: Runner) -> int:
    """Writes the shards that are not there yet; returns the number of clips that were."""
    results = [(shard, work_folder.read_result(folder, shard)) for shard in plan.shards]
    todo = [shard for shard, result in results if result is None]
    done = [(shard, result) for shard, result in results if result is not None]
    num_before = sum(len(shard.clips) for shard, _ in done)
    num_failed = sum(len(result.failures) for _, result in done)
    with progress_bar(
        plan.num_clips, "extracting", "clip", initial=num_before, smoothing=0.1
    ) as bar:
        if done:
            text = f"going on: {len(done)} of {len(results)} shards are done"
            bar.write(text, file=sys.stderr)

        def on_clips(num_done: int, newly_failed: int) -> None:
            nonlocal num_failed
            num_failed += newly_failed
            bar.set_postfix(failed=num_failed, refresh=False)
            bar.update(num_done)

        on_clips(0, 0)
        if todo:
            runner(folder, todo, job, on_clips)
    return num_before


def _read_results(folder: Path, plan: Plan) -> list[ShardResult]:
    """One per shard of the plan."""
    found = [work_folder.read_result(folder, shard) for shard in plan.shards]
    missing = [s.name for s, r in zip(plan.shards, found, strict=True) if r is None]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(found)} shards were not finished, the first is "
            f"{missing[0]} in {folder}; give the same command again."
        )
    return [result for result in found if result is not None]


def _finish(
    folder: Path,
    out: Path,
    plan: Plan,
    job: ShardJob,
    results: Sequence[ShardResult],
    manifest: Manifest,
) -> ExtractSummary:
    pairs = list(zip(plan.shards, results, strict=True))
    failures = [failure for shard, result in pairs for failure in result.failed(shard)]
    failures.sort(key=lambda failure: failure.clip.line)
    summary = _summary(pairs, failures)
    if not summary.num_clips:
        # The next run must try again, for instance with a mended path.
        work_folder.remove(folder)
        raise UserError(_all_failed_message(manifest, failures))
    config = job.config
    info = FolderInfo(
        job.label_sets,
        config.frame_rate_hz,
        config.short_side_px,
        config.jpeg_quality,
        job.multi_label,
    )
    kept = dataclasses.asdict(summary)
    for name in ("num_before", "elapsed_sec"):  # differ from run to run
        del kept[name]
    work_folder.finish(folder, out, plan, results, info=info, failures=failures, summary=kept)
    return summary


def _summary(
    pairs: Sequence[tuple[PlannedShard, ShardResult]], failures: Sequence[Failure]
) -> ExtractSummary:
    sums = {
        name: {
            split: sum(getattr(r, name) for shard, r in pairs if shard.split == split)
            for split in SPLITS
        }
        for name in ("num_records", "num_without_audio", "num_without_video", "clip_sec")
    }
    splits = [split for split in SPLITS if sums["num_records"][split]]
    num_failed = collections.Counter(failure.clip.split for failure in failures)
    return ExtractSummary(
        num_clips={split: sums["num_records"][split] for split in splits},
        num_without_audio={split: sums["num_without_audio"][split] for split in splits},
        num_without_video={split: sums["num_without_video"][split] for split in splits},
        clip_sec={split: sums["clip_sec"][split] for split in splits},
        num_failed={split: num_failed[split] for split in SPLITS if num_failed[split]},
        num_bytes=sum(result.num_bytes for _, result in pairs),
        num_before=0,
        elapsed_sec=0.0,
    )


def _finished_summary(finished: dict[str, Any], plan: Plan, out: Path) -> ExtractSummary:
    try:
        return ExtractSummary(**finished, num_before=plan.num_clips, elapsed_sec=0.0)
    except TypeError as error:
        raise UserError(
            f"{out / work_folder.DONE_FILE} is damaged ({error}); delete {out} or choose another "
            "--out."
        ) from error


def _all_failed_message(manifest: Manifest, failures: Sequence[Failure]) -> str:
    reasons = collections.Counter(failure.reason for failure in failures).most_common()
    counts = ", ".join(f"{reason} {count}" for reason, count in reasons)
    return (
        f"none of the {len(failures)} clips of {manifest.path} could be decoded ({counts}); "
        f"the first: {failures[0].message}."
    )
