"""What a training shows: one line that moves on a terminal, a line for each log entry elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

from avt_jax.host.terminal import printable_lines, show
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
    """One line that moves on a terminal; a line for each log entry elsewhere."""

    def __init__(self, start: int, total: int, batch_size: int):
        # None = on a terminal. The other processes say nothing.
        self._speaks = agree.is_first()
        self._bar = tqdm(
            total=total,
            initial=start,
            desc="train",
            unit="step",
            disable=None if self._speaks else True,
            leave=True,
        )
        self._total, self._batch_size = total, batch_size
        self._mean = Mean()
        self._since = (time.monotonic(), start)
        self._done = start
        self._waits = _Waits()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, step: int, metrics: dict[str, Any]) -> None:
        self._mean.add(metrics)
        self._done = step
        self._bar.update(1)

    def log(self, more: dict[str, float]) -> dict[str, float]:
        """Means since the last call, with the rate; shown and returned."""
        now, (then, done) = time.monotonic(), self._since
        rate = (self._done - done) * self._batch_size / max(now - then, 1e-9)
        self._since = (now, self._done)
        values = self._mean.pop() | more | {"clips_per_sec": rate}
        left = (self._total - self._done) * self._batch_size / max(rate, 1e-9)
        shown = {k: v for k, v in values.items() if k == "loss" or k.startswith("top1/")}
        text = ", ".join(f"{k} {v:.3f}" for k, v in shown.items()) + f", {rate:.1f} clips/s"
        if values["damaged"]:
            text += f", {values['damaged']} damaged records passed over"
        text += _briefly(values)
        if self._bar.disable:
            self.say(f"step {self._done}/{self._total}: {text}, {_clock(left)} left")
        else:
            self._bar.set_postfix_str(text)
        if advice := self._waits.advice(values, self._done - done):
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
        self._since = (time.monotonic(), self._done)
        text = ", ".join(f"{k} {v:.3f}" for k, v in values.items())
        self.say(f"step {step}/{self._total}: validation {text}")

    def say(self, text: str) -> None:
        if not self._speaks:
            return
        if self._bar.disable:
            show(text, file=sys.stderr, flush=True)
        else:
            self._bar.write(printable_lines(text), file=sys.stderr)


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
