"""A trace of a few steps, for xprof or TensorBoard."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import jax

from avt_jax.errors import UserError, first_line


class Trace:
    """Records what the host and its devices do in some steps.

    Args:
      first: the first of the steps, from 1 on.
      last: the last of them.
      folder: where the trace goes; made when missing.
      total_steps: length of the training.

    Raises:
      UserError: there are no such steps.
    """

    def __init__(self, first: int, last: int, folder: Path, *, total_steps: int):
        if not 0 < first <= last:
            raise UserError(
                f"--profile-steps {first}:{last}: give the first and the last step, such as 10:13."
            )
        if last > total_steps:
            raise UserError(
                f"--profile-steps {first}:{last}: the training ends with step {total_steps}; give "
                "steps before that."
            )
        self.first, self.last, self.folder = first, last, Path(folder)
        self._runs = False

    def begins(self, step: int) -> None:
        """Called before the data of a step are read.

        Raises:
          UserError: the folder cannot be written.
        """
        if self._runs or not self.first <= step <= self.last:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"--profile-dir {self.folder}: {first_line(error)}; give another folder."
            ) from error
        jax.profiler.start_trace(self.folder)
        self._runs = True

    def ends(self, step: int, metrics: Any) -> str:
        """Called when a step has been handed to the device; what to tell the user, "" for nothing.

        Only here the host waits for the device, that all of the last step is in the trace.

        Args:
          step: its number.
          metrics: of the step, on the device.
        """
        if not self._runs or step < self.last:
            return ""
        jax.block_until_ready(metrics)
        self.close()
        where = shlex.quote(str(self.folder))
        return (
            f"the trace of steps {self.first} to {self.last} is in {self.folder}; look at it with "
            f"'pip install xprof' and 'xprof --logdir {where}'"
        )

    def close(self) -> None:
        """Ends a trace that still runs, since the training stops."""
        if self._runs:
            self._runs = False
            jax.profiler.stop_trace()
