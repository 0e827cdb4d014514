"""Where metrics go: `metrics.jsonl` for programs, TensorBoard and other services for people."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import image, scalar

from avt_jax.errors import UserError
from avt_jax.host.growing_file import GrowingFile
from avt_jax.host.metric_lines import read_metrics
from avt_jax.host.new_files import write_text
from avt_jax.training.observing.trackers import Tracker

METRICS_FILE, BOARD_FOLDER = "metrics.jsonl", "tensorboard"


class MetricWriter:
    """Appends scalars to a run folder.

    A resumed run repeats the steps after its checkpoint: what an earlier process logged beyond
    `step` is dropped, so every step appears once.

    Args:
      run_dir: the run's folder.
      step: the step the run starts or continues from.
      tensorboard: whether TensorBoard's files are written.
      trackers: what else takes metrics and images; closed with it.

    Raises:
      UserError: the files cannot be written.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        step: int,
        tensorboard: bool = True,
        trackers: Sequence[Tracker] = (),
    ):
        self._file_path = Path(run_dir) / METRICS_FILE
        self._board: _Board | None = None
        self._trackers = trackers
        try:
            _keep_until(self._file_path, step)
            self._file = GrowingFile(self._file_path)
            if tensorboard:
                self._board = _Board(Path(run_dir) / BOARD_FOLDER, purge_step=step + 1)
        except OSError as error:
            raise self._cannot_write(error) from error

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes one line, and a scalar for each value elsewhere.

        Args:
          step: optimiser steps done.
          split: "train" or "val".
          values: {metric: number}.

        Raises:
          UserError: the file cannot be written.
        """
        line = json.dumps({"step": step, "split": split, **values}) + "\n"
        named = {f"{split}/{name}": value for name, value in values.items()}
        try:
            self._file.add(line)
            if self._board:
                self._board.write(step, (scalar(tag, value) for tag, value in named.items()))
        except OSError as error:
            raise self._cannot_write(error) from error
        for tracker in self._trackers:
            tracker.log(step, named)

    def write_image(self, step: int, name: str, image_hwc: np.ndarray) -> None:
        """Writes an image of the validation to where images can be kept.

        Args:
          step: optimiser steps done.
          name: of the picture.
          image_hwc: uint8 [h, w, 3].

        Raises:
          UserError: the file cannot be written.
        """
        try:
            if self._board:
                self._board.write(step, [image(f"val/{name}", image_hwc, dataformats="HWC")])
        except OSError as error:
            raise self._cannot_write(error) from error
        for tracker in self._trackers:
            tracker.log_image(step, f"val/{name}", image_hwc)

    def sync(self) -> None:
        """Makes the lines outlive the machine: before the checkpoint that they lead to is written.

        Raises:
          UserError: the file cannot be written.
        """
        try:
            self._file.sync()
        except OSError as error:
            raise self._cannot_write(error) from error

    def close(self) -> None:
        """Closes all of them."""
        # What counts was synced, or told of when it was written.
        with contextlib.suppress(OSError):
            self._file.close()
        if self._board:
            self._board.close()
        for tracker in self._trackers:
            tracker.close()

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(
            f"cannot write {self._file_path}: {error.strerror or error}; mend that, then the same "
            "command goes on from its last checkpoint."
        )


class _Board:
    """TensorBoard's event file, written at once.

    The writer that the package means for this has a thread, which a full disk ends with a
    traceback; the training would then wait for it for ever.
    """

    def __init__(self, folder: Path, *, purge_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._events = EventsWriter(str(folder / "events"))
        start = SessionLog(status=SessionLog.START)
        for event in (
            Event(step=purge_step, file_version="brain.Event:2"),
            Event(step=purge_step, session_log=start),
        ):
            event.wall_time = time.time()
            self._events.write_event(event)
        self._events.flush()

    def write(self, step: int, summaries: Iterable[Any]) -> None:
        for summary in summaries:
            self._events.write_event(Event(step=step, wall_time=time.time(), summary=summary))
        self._events.flush()

    def close(self) -> None:
        # What was not written has been told.
        with contextlib.suppress(OSError):
            self._events.close()


class NoWriter:
    """In the place of a `MetricWriter` where another process writes."""

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Nothing."""

    def write_image(self, step: int, name: str, image_hwc: np.ndarray) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def has_line(run_dir: Path, step: int, split: str) -> bool:
    """Whether a run has metrics of a split at a step."""
    entries = read_metrics(Path(run_dir) / METRICS_FILE)
    return any((one["step"], one["split"]) == (step, split) for one in entries)


def _keep_until(path: Path, step: int) -> None:
    if os.path.lexists(path):
        kept = [json.dumps(entry) + "\n" for entry in read_metrics(path) if entry["step"] <= step]
        write_text(path, "".join(kept))
