"""Where metrics go: `metrics.jsonl` for programs, TensorBoard and other services for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from avt_jax.host.new_files import write_text
from avt_jax.training.observing.trackers import Tracker

METRICS_FILE = "metrics.jsonl"


class MetricWriter:
    """Appends scalars to a run folder.

    A resumed run repeats the steps after its checkpoint: what an earlier process logged beyond
    `step` is dropped, so every step appears once.

    Args:
      run_dir: the run's folder.
      step: the step the run starts or continues from.
      tensorboard: whether TensorBoard's files are written.
      trackers: what else takes metrics and images; closed with it.
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
        _keep_until(self._file_path, step)
        self._file = self._file_path.open("a", encoding="utf-8")
        self._board: Any = None
        if tensorboard:
            self._board = SummaryWriter(str(Path(run_dir) / "tensorboard"), purge_step=step + 1)
        self._trackers = trackers

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes one line, and a scalar for each value elsewhere.

        Args:
          step: optimiser steps done.
          split: "train" or "val".
          values: {metric: number}.
        """
        self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        self._file.flush()
        named = {f"{split}/{name}": value for name, value in values.items()}
        if self._board:
            for name, value in named.items():
                self._board.add_scalar(name, value, step)
        for tracker in self._trackers:
            tracker.log(step, named)

    def write_image(self, step: int, name: str, image_hwc: np.ndarray) -> None:
        """Writes an image of the validation to where images can be kept.

        Args:
          step: optimiser steps done.
          name: of the picture.
          image_hwc: uint8 [h, w, 3].
        """
        if self._board:
            self._board.add_image(f"val/{name}", image_hwc, step, dataformats="HWC")
        for tracker in self._trackers:
            tracker.log_image(step, f"val/{name}", image_hwc)

    def close(self) -> None:
        """Flushes and closes all of them."""
        self._file.close()
        if self._board:
            self._board.close()
        for tracker in self._trackers:
            tracker.close()


class NoWriter:
    """In the place of a `MetricWriter` where another process writes."""

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Nothing."""

    def write_image(self, step: int, name: str, image_hwc: np.ndarray) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def has_line(run_dir: Path, step: int, split: str) -> bool:
    """Whether a run has metrics of a split at a step."""
    path = Path(run_dir) / METRICS_FILE
    return any((one["step"], one["split"]) == (step, split) for one in _entries(path))


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of one a line; other lines, and one that a kill has cut off, are
    passed over."""
    found = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                found.append(entry)
    return found


def _entries(path: Path) -> list[dict[str, Any]]:
    """The lines that are ours."""
    return [one for one in json_lines(path) if isinstance(one.get("step"), int) and "split" in one]


def _keep_until(path: Path, step: int) -> None:
    if path.exists():
        kept = [json.dumps(entry) + "\n" for entry in _entries(path) if entry["step"] <= step]
        write_text(path, "".join(kept))
