"""What a training shows: one line that moves on a terminal, a line for each log entry elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, NoReturn

from tqdm import tqdm

from avt_jax.host.output.terminal import show
from avt_jax.training.metrics import Mean
from avt_jax.training.observing.clock import DATA, DEVICE, HOST
from avt_jax.training.processes import agree
from avt_jax.training.writer import MetricWriter, NoWriter

# Beyond this share of the steps' time there is something to gain from faster reading. Of fewer
# steps it says little: the first batches are read while nothing else is.
_MUCH_WAITING = 0.25
_FEW_STEPS = 10
_READ_FASTER = (
    "steps wait for data for {share:.0%} of their time: 'avt inspect SHARDS --probe' finds the "
    "fastest --config.data.num_threads and num_workers here; see docs/monitoring.md"
)


class Progress:
    """One line that moves on a terminal; a line for each log entry elsewhere.

    Rate and time left are those of the steps after the first one of this start, which compiles:
    until that is done there is neither.
    """

    def __init__(self, start: int, total: int, batch_size: int):
        # The other processes say nothing.
        self._speaks = agree.is_first()
        self._bar: tqdm[NoReturn] | None = None
        self._total, self._batch_size = total, batch_size
        self._mean = Mean()
        self._done = start
        # Time and step from which on the rate is taken.
        self._since: tuple[float, int] | None = None
        self._waits = _Waits()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _begin(self) -> tqdm[NoReturn]:
        """The clock of the line and of the rate starts where the first step ends."""
        self._since = (time.monotonic(), self._done)
        return tqdm(
            total=self._total,
            initial=self._done,
            desc="train",
            unit="step",
            # None = on a terminal.
            disable=None if self._speaks else True,
            leave=True,
        )

    def add(self, step: int, metrics: dict[str, Any]) -> None:
        self._mean.add(metrics)
        self._done = step
        if self._bar is None:
            self._bar = self._begin()
        else:
            self._bar.update(1)

    def log(self, more: dict[str, float]) -> dict[str, float]:
        """Means since the last call, with the rate where it is known; shown and returned."""
        values = self._mean.pop() | more
        shown = {k: v for k, v in values.items() if k == "loss" or k.startswith(("top1/", "hit1/"))}
        text = ", ".join(f"{k} {v:.3f}" for k, v in shown.items())
        steps, left = 0, ""
        if self._since and self._since[1] < self._done:
            now, (then, before) = time.monotonic(), self._since
            steps = self._done - before
            rate = steps * self._batch_size / max(now - then, 1e-9)
            self._since = (now, self._done)
            values |= {"clips_per_sec": rate}
            text += f", {rate:.1f} clips/s"
            sec = (self._total - self._done) * self._batch_size / max(rate, 1e-9)
            left = f", {_clock(sec)} left"
        if values["damaged"]:
            text += f", {values['damaged']} damaged records passed over"
        text += _briefly(values)
        if self._bar is None or self._bar.disable:
            self.say(f"step {self._done}/{self._total}: {text}{left}")
        else:
            self._bar.set_postfix_str(text)
        if advice := self._waits.advice(values, steps):
            self.say(advice)
        return values

    def evaluated(
        self, step: int, values: dict[str, float], writer: MetricWriter | NoWriter
    ) -> None:
        """Shows and writes the metrics of an evaluation, if there are any."""
        if not values:
            return
        writer.write(step, "val", values)
        # The time an evaluation took is no training time.
        if self._since:
            self._since = (time.monotonic(), self._done)
        text = ", ".join(f"{k} {v:.3f}" for k, v in values.items())
        self.say(f"step {step}/{self._total}: validation {text}")

    def say(self, text: str) -> None:
        if not self._speaks:
            return
        with tqdm.external_write_mode(file=sys.stderr):
            show(text, file=sys.stderr, flush=True)


class _Waits:
    """How long a start has waited for data, to say so once."""

    def __init__(self) -> None:
        self._steps, self._waited_sec, self._total_sec = 0, 0.0, 0.0
        self._said = False

    def advice(self, values: dict[str, float], steps: int) -> str:
        """What to do about it after further steps; "" for nothing."""
        if DATA not in values or self._said:
            return ""
        self._steps += steps
        self._waited_sec += steps * values[DATA]
        self._total_sec += steps * _step_sec(values)
        share = self._waited_sec / max(self._total_sec, 1e-9)
        if self._steps < _FEW_STEPS or share <= _MUCH_WAITING:
            return ""
        self._said = True
        return _READ_FASTER.format(share=share)


def _step_sec(values: dict[str, float]) -> float:
    return values[DATA] + values[HOST] + values[DEVICE]


def _briefly(values: dict[str, float]) -> str:
    """What a line shows of where the time goes."""
    if DATA not in values:
        return ""
    text = f", {values[DATA] / max(_step_sec(values), 1e-9):.0%} waiting for data"
    return text + (f", MFU {values['mfu']:.0%}" if "mfu" in values else "")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
