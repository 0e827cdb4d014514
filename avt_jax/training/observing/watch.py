"""What the loop tells, and what is logged of it beside the metrics of the steps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from avt_jax.host import collecting
from avt_jax.host.compiling import Compiling
from avt_jax.losses.interface import Metrics
from avt_jax.training.observing.clock import StepClock
from avt_jax.training.observing.goodput import Goodput
from avt_jax.training.observing.trace import Trace
from avt_jax.training.state import TrainState
from avt_jax.training.step import TrainStep

_GIB = 2**30


@dataclass
class Watch:
    """Observes one start of a training; what is None is not looked at.

    Attributes:
      clock: divides the time of the steps.
      peak_flops: what the devices can do together, FLOPs a second.
      count_flops: (state, batch, key) that the step has run on -> FLOPs of a step.
      trace: of some steps; in the first process.
      goodput: of the run; in the first process.
      pictures: state as the step takes it -> {name: uint8 [h, w, 3]} after an evaluation; computes
        in all processes, and gives some in the first one.
      compiling: is told when the first step has been compiled, which is the last to be.
      lines: {step: what to tell the user once the device has it}.
    """

    clock: StepClock = field(default_factory=StepClock)
    peak_flops: float | None = None
    count_flops: Callable[[TrainState, dict[str, Any], jax.Array], int] | None = None
    trace: Trace | None = None
    goodput: Goodput | None = None
    pictures: Callable[[TrainState], dict[str, np.ndarray]] | None = None
    compiling: Compiling | None = None
    lines: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._flops = 0

    def counting(self, train_step: TrainStep) -> TrainStep:
        """The same step; what the first one does is counted while the device does it.

        A call returns when the program is compiled and handed over.
        """

        def step(
            state: TrainState, batch: dict[str, Any], key: jax.Array
        ) -> tuple[TrainState, Metrics]:
            with self.compiling or contextlib.nullcontext():
                state, metrics = train_step(state, batch, key)
            if self.compiling:
                self.compiling.done()
                self.compiling = None
            collecting.resume()
            if self.peak_flops and self.count_flops and not self._flops:
                self._flops = self.count_flops(state, batch, key)
            return state, metrics

        return step

    def begins(self, step: int) -> None:
        """Called before the data of a step are read."""
        if self.trace:
            with self.clock.stopped():
                self.trace.begins(step)

    def handed_over(self, step: int, metrics: Metrics) -> str:
        """Called when the device has a step; what to tell the user, "" for nothing."""
        told = [self.lines.get(step, "")]
        if self.trace:
            with self.clock.stopped():
                told.append(self.trace.ends(step, metrics))
        return "\n".join(filter(None, told))

    def saves(self, step: int) -> None:
        """Called before a step is saved, while the clock is stopped."""
        if self.goodput:
            self.goodput.saves(step, self.clock.useful_sec)

    def summary(self) -> str:
        """What to tell the user at the end, "" for nothing."""
        if not self.goodput:
            return ""
        starts = self.goodput.starts
        share = self.goodput.share(self.clock.useful_sec)
        return f"goodput {share:.2f} over {starts} start{'s' if starts > 1 else ''}"

    def close(self) -> None:
        """Called when the training ends, however it does."""
        if self.trace:
            self.trace.close()
        if self.goodput:
            self.goodput.close()

    def values(self) -> dict[str, float]:
        """What is logged: means over the steps since the last call, and the state of things now."""
        found = self.clock.pop()
        step_sec = sum(found.values())
        if self.peak_flops and self._flops and step_sec > 0:
            found["mfu"] = self._flops / (step_sec * self.peak_flops)
        if self.goodput:
            found["goodput"] = self.goodput.share(self.clock.useful_sec)
        return found | _memory()


def _memory() -> dict[str, float]:
    """The most that was in use on a device of this process; empty where that is not counted."""
    found = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in found if "peak_bytes_in_use" in stats]
    return {"memory_peak_gib": max(peaks) / _GIB} if peaks else {}
