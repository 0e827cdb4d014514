"""What share of a run's time was spent in steps that count, over all its starts."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from avt_jax.host.growing_file import GrowingFile
from avt_jax.host.metric_lines import json_lines
from avt_jax.host.new_files import write_text

GOODPUT_FILE = "goodput.jsonl"


class Goodput:
    """Keeps, in a file of the run's folder, when the run was started and what it then achieved.

    A line tells of a start, or of a step that is about to be saved and of the seconds that all
    steps up to it have taken. A start that continues from an earlier step drops what was told of
    later ones: those steps are lost. The run's time is that since its first start, pauses too.

    Args:
      run_dir: the run's folder.
      step: the step the run starts or continues from.
      began_sec: when this start began, `time.time()`.
    """

    def __init__(self, run_dir: Path, *, step: int, began_sec: float):
        path = Path(run_dir) / GOODPUT_FILE
        lines = [line for line in json_lines(path) if _is_start(line) or _is_kept(line, step)]
        started = [line["began_sec"] for line in lines if _is_start(line)]
        saved = [(line["step"], line["useful_sec"]) for line in lines if not _is_start(line)]
        self.starts = len(started) + 1
        self._first_sec = min([*started, began_sec])
        self._before_sec = max(saved)[1] if saved else 0.0
        lines.append({"began_sec": began_sec, "from_step": step})
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
        self._file = GrowingFile(path)

    def saves(self, step: int, useful_sec: float) -> None:
        """Called before a step is saved.

        Args:
          step: its number.
          useful_sec: that steps have taken since this start.
        """
        line = {"step": step, "useful_sec": self._before_sec + useful_sec}
        # On a full disk this is what can be done without; the checkpoint says what is wrong.
        with contextlib.suppress(OSError):
            self._file.add(json.dumps(line) + "\n")
            self._file.sync()

    def share(self, useful_sec: float) -> float:
        """In [0, 1]; the argument as that of `saves`."""
        passed_sec = max(time.time() - self._first_sec, 1e-9)
        return min(1.0, (self._before_sec + useful_sec) / passed_sec)

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):
            self._file.close()


def _is_start(line: dict[str, Any]) -> bool:
    return isinstance(line.get("began_sec"), int | float)


def _is_kept(line: dict[str, Any], step: int) -> bool:
    """Whether a line tells of a step that this start builds on."""
    return (
        isinstance(line.get("step"), int)
        and isinstance(line.get("useful_sec"), int | float)
        and line["step"] <= step
    )
