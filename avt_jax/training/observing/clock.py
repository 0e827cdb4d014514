"""Where the time of the steps goes, on the host's clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

DATA, DEVICE = "wait_data_sec", "device_sec"
HOST = "host_sec"


class StepClock:
    """Divides the time of the steps into what the loop waited for and the rest.

    A loop that waits for data has a device that waits, too; one that waits for the device has data
    in time. The clock stands still until the first step is done, which compiles, and while it is
    stopped, for evaluations and checkpoints.

    Attributes:
      useful_sec: that the steps took, since the start.
    """

    def __init__(self) -> None:
        self.useful_sec = 0.0
        self._steps = 0
        self._total_sec = 0.0
        self._waited_sec = {DATA: 0.0, DEVICE: 0.0}
        self._since_sec: float | None = None

    @property
    def runs(self) -> bool:
        """The first step is done, and the clock is not stopped."""
        return self._since_sec is not None

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Adds the time that the body takes to `DATA` or `DEVICE`."""
        began_sec = time.monotonic()
        try:
            yield
        finally:
            if self.runs:
                self._waited_sec[what] += time.monotonic() - began_sec

    def step(self) -> None:
        """Counts a step that is done; the first one starts the clock."""
        if self.runs:
            self._steps += 1
        else:
            self._since_sec = time.monotonic()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """What the body takes is no time of a step."""
        ran = self.runs
        self._settle()
        self._since_sec = None
        try:
            yield
        finally:
            if ran:
                self._since_sec = time.monotonic()

    def pop(self) -> dict[str, float]:
        """{`DATA`, `HOST`, `DEVICE`: seconds} of a step since the last call, which sum to its time.

        Empty where no step but the first one was done.
        """
        self._settle()
        steps, self._steps = self._steps, 0
        total_sec, self._total_sec = self._total_sec, 0.0
        waited_sec, self._waited_sec = self._waited_sec, dict.fromkeys(self._waited_sec, 0.0)
        if not steps:
            return {}
        host_sec = max(0.0, total_sec - sum(waited_sec.values()))
        return {
            name: seconds / steps
            for name, seconds in (
                (DATA, waited_sec[DATA]),
                (HOST, host_sec),
                (DEVICE, waited_sec[DEVICE]),
            )
        }

    def _settle(self) -> None:
        if self._since_sec is None:
            return
        now_sec = time.monotonic()
        self.useful_sec += now_sec - self._since_sec
        self._total_sec += now_sec - self._since_sec
        self._since_sec = now_sec
