"""Extraction as an Apache Beam pipeline: each shard is one element, written wherever Beam likes.

Beam is the optional extra `beam`. What is written is what `extract.run_in_pool` writes.
"""

from __future__ import annotations

import functools
import os
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avt_jax.data.extraction import work_folder
from avt_jax.data.extraction.extract import Runner
from avt_jax.data.extraction.job import ADVICE, OnClips, ShardJob, write_shards
from avt_jax.data.extraction.plan import PlannedShard
from avt_jax.errors import UserError
from avt_jax.host.new_files import write_text
from avt_jax.host.worker_pool import default_num_workers

_SHARDS_FILE = "shards.jsonl"
_POLL_SEC = 2.0


def make_runner(options: Sequence[str] = (), *, num_workers: int | None = None) -> Runner:
    """Makes what `extract.extract` takes as its runner.

    The folder and the videos must be on a file system that all of Beam's workers see under the same
    paths, and avt_jax must be installed there.

    Args:
      options: Beam's own command line, for instance ("--runner=FlinkRunner",
        "--flink_master=host:8081"); without any, Beam's DirectRunner works in processes of this
        machine.
      num_workers: processes of the DirectRunner; None is one per core.

    Returns:
      An `extract.Runner`.

    Raises:
      UserError: Beam is not installed, or an option is wrong.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(
            'Beam is not installed; pip install "avt_jax[beam]", or leave out --runner beam.'
        ) from error
    num_workers = default_num_workers() if num_workers is None else num_workers
    direct = [
        "--runner=DirectRunner",
        "--direct_running_mode=multi_processing",
        f"--direct_num_workers={num_workers}",
        "--default_sdk_harness_log_level=ERROR",
    ]
    try:
        parsed = PipelineOptions([*direct, *options])
        parsed.get_all_options()
        beam.Pipeline(options=parsed)  # finds the runner and asks it what it thinks of them
    except SystemExit as error:  # argparse has said what is wrong
        raise UserError(f"Beam does not accept {' '.join(options)}.") from error
    except (ValueError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())[:400]
        raise UserError(f"Beam does not accept {' '.join(options)} ({reason}).") from error
    return functools.partial(_run, options=parsed)


def _run(
    folder: Path,
    shards: Sequence[PlannedShard],
    job: ShardJob,
    on_clips: OnClips,
    *,
    options: Any,
) -> None:
    import apache_beam as beam

    positions = _write_list(folder / _SHARDS_FILE, shards)
    pipeline = beam.Pipeline(options=options)
    _ = (
        pipeline
        | "shards" >> beam.Create(positions)
        # Else the runner would do all of them where they were made.
        | "spread" >> beam.Reshuffle()
        | "write" >> beam.Map(_write_one, folder=os.fspath(folder), job=job)
    )
    outcome: queue.Queue[BaseException | None] = queue.Queue()
    threading.Thread(target=_wait, args=(pipeline, outcome), daemon=True).start()
    waiting = list(shards)
    while True:
        try:
            error = outcome.get(timeout=_POLL_SEC)
            break
        except queue.Empty:
            waiting = _report(folder, waiting, on_clips)
    _report(folder, waiting, on_clips)
    if error is not None:
        raise UserError(
            f"the Beam pipeline failed ({(str(error).splitlines() or [repr(error)])[-1][:300]}); "
            "finished shards are kept: give the same command again once it is mended."
        ) from error
    (folder / _SHARDS_FILE).unlink()


def _write_list(path: Path, shards: Sequence[PlannedShard]) -> list[int]:
    """Writes the shards' clips, which would be too many for a job description.

    Returns:
      Where in the file each shard begins.
    """
    lines = [shard.to_json() + "\n" for shard in shards]
    positions = [0]
    for line in lines:  # ASCII: as many bytes as characters
        positions.append(positions[-1] + len(line))
    write_text(path, "".join(lines), durable=True, advice=ADVICE)
    return positions[:-1]


def _wait(pipeline: Any, outcome: queue.Queue[BaseException | None]) -> None:
    try:
        pipeline.run().wait_until_finish()
        outcome.put(None)
    except BaseException as error:
        outcome.put(error)


def _report(folder: Path, waiting: Sequence[PlannedShard], on_clips: OnClips) -> list[PlannedShard]:
    """Counts shards finished since; returns those that are still waited for."""
    left = []
    for shard in waiting:
        result = work_folder.read_result(folder, shard)
        if result is None:
            left.append(shard)
        else:
            on_clips(len(shard.clips), len(result.failures))
    return left


def _write_one(position: int, folder: str, job: ShardJob) -> None:
    """Runs on Beam's workers."""
    with open(Path(folder) / _SHARDS_FILE, "rb") as file:
        file.seek(position)
        shard = PlannedShard.from_json(file.readline())
    if work_folder.read_result(Path(folder), shard) is not None:
        return  # Beam repeats elements whose worker it has lost
    # Beam has its own processes, but one of these must not die or hang for one clip.
    write_shards(Path(folder), [shard], job, num_workers=1)
