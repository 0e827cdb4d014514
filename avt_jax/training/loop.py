"""The training loop: feeds the jitted step, logs, evaluates, checkpoints, and can stop."""

from __future__ import annotations

import collections
import contextlib
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from avt_jax.errors import UserError
from avt_jax.losses.interface import Metrics
from avt_jax.settings import Block, setting
from avt_jax.training import mesh as meshes
from avt_jax.training.checkpoint import Checkpointer
from avt_jax.training.durations import (
    Pace,
    chosen_unit,
    in_epochs_setting,
    in_examples_setting,
    in_steps,
    in_steps_setting,
)
from avt_jax.training.metrics import Mean, not_finite
from avt_jax.training.state import TrainState
from avt_jax.training.step import TrainStep, as_it_is
from avt_jax.training.writer import MetricWriter


@dataclass(frozen=True)
class TrainConfig(Block, where="config.train"):
    """The config block `train`."""

    batch_size: int = setting(32, "clips per step, over all devices", at_least=1, at_most=10**9)
    accumulate: int = setting(
        1,
        "micro-batches that a batch is cut into: a step needs the memory of one, and trains on the "
        "whole batch's loss. BatchNorm that is not frozen normalises within a micro-batch",
        at_least=1,
        at_most=10**6,
    )
    eval_batch_size: int = setting(
        32, "clips per evaluation batch, over all devices", at_least=1, at_most=10**9
    )
    epochs: float = in_epochs_setting(100.0, "length of the training")
    steps: int = in_steps_setting(0, "length of the training")
    examples: int = in_examples_setting(0, "length of the training")
    log_every_steps: int = in_steps_setting(50, "from one line of training metrics to the next")
    log_every_examples: int = in_examples_setting(0, "from one line of metrics to the next")
    log_every_epochs: float = in_epochs_setting(0.0, "from one line of metrics to the next")
    eval_every_steps: int = in_steps_setting(
        0, "from one evaluation to the next; once an epoch if no unit is given. Always at the end"
    )
    eval_every_examples: int = in_examples_setting(0, "from one evaluation to the next")
    eval_every_epochs: float = in_epochs_setting(0.0, "from one evaluation to the next")
    checkpoint_every_steps: int = in_steps_setting(
        0, "from one checkpoint to the next; only at evaluations if no unit is given"
    )
    checkpoint_every_examples: int = in_examples_setting(0, "from one checkpoint to the next")
    checkpoint_every_epochs: float = in_epochs_setting(0.0, "from one checkpoint to the next")
    keep_last: int = setting(2, "newest checkpoints kept", at_least=1, at_most=10**6)
    keep_best: int = setting(
        1, "checkpoints of highest validation score kept", at_least=0, at_most=10**6
    )

    def check(self) -> None:
        """Refuses a length or interval in two units."""
        for prefix in ("", "log_every", "eval_every", "checkpoint_every"):
            chosen_unit(self, prefix)
        if chosen_unit(self, "log_every") is None:
            raise UserError("config.train.log_every_steps is 0; give 1 or more.")

    def pace(self, num_clips: int) -> Pace:
        """Clips a step, and steps in one pass over `num_clips`: at least 1."""
        return Pace(self.batch_size, max(1, num_clips // self.batch_size))

    def schedule(self, num_clips: int) -> Schedule:
        """When a training on `num_clips` does what."""
        pace = self.pace(num_clips)

        def rounded(prefix: str) -> int:
            steps = in_steps(self, prefix, pace)
            return 0 if steps is None else max(1, round(steps))

        return Schedule(
            total_steps=max(1, rounded("")),
            log_every=rounded("log_every"),
            eval_every=rounded("eval_every") or pace.steps_per_epoch,
            checkpoint_every=rounded("checkpoint_every"),
        )


class Batches(Protocol):
    """An endless iterator over batches whose position can be saved."""

    @property
    def num_damaged(self) -> int:
        """Different damaged records that were passed over."""

    def __next__(self) -> dict[str, Any]: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> list[str]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Schedule:
    """When the loop does what; see `TrainConfig`."""

    total_steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int

    def logs(self, step: int) -> bool:
        """True when training metrics are due after `step` steps."""
        return step % self.log_every == 0 or step == self.total_steps

    def evaluates(self, step: int) -> bool:
        """True when an evaluation is due."""
        return step % self.eval_every == 0 or step == self.total_steps

    def checkpoints(self, step: int) -> bool:
        """True when a checkpoint is due."""
        return self.evaluates(step) or bool(
            self.checkpoint_every and step % self.checkpoint_every == 0
        )


class _StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the current step."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _StopRequest:
        with contextlib.suppress(ValueError):  # not in the main thread: leave signals alone
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, _frame: Any) -> None:
        self.signal = number
        signal.signal(number, self._before[number])  # a second one acts at once

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def fit(
    state: TrainState,
    train_step: TrainStep,
    batches: Batches,
    *,
    key: jax.Array,
    mesh: Mesh,
    schedule: Schedule,
    batch_size: int,
    checkpointer: Checkpointer,
    writer: MetricWriter,
    learning_rate: Callable[[int], Any],
    evaluate: Callable[[TrainState], tuple[dict[str, float], float | None]],
    unpack: Callable[[TrainState], TrainState] = as_it_is,
) -> TrainState:
    """Trains from `state.step` to `schedule.total_steps`.

    Args:
      state: where to start, in the form that the step takes.
      train_step: the jitted step.
      batches: endless; its position is saved with every checkpoint.
      key: PRNG key of the run; the step folds it with the step number.
      mesh: from `make_mesh`.
      schedule: when to log, evaluate and save.
      batch_size: clips per step over all devices, for the rate shown.
      checkpointer, writer: where states and metrics go.
      learning_rate: step -> learning rate, to be logged.
      evaluate: such a state -> (validation metrics, score or None: higher is better).
      unpack: from the form that the step takes to the one that is saved.

    Returns:
      The final state, unpacked.

    Raises:
      UserError: a loss is not finite; names step and terms. The last good checkpoint stays.
      KeyboardInterrupt: after Ctrl-C or SIGTERM, once a checkpoint is saved.
    """
    progress = _Progress(int(state.step), schedule.total_steps, batch_size)
    pending = _Pending(progress)
    with progress, _StopRequest() as stop:
        for step in range(int(state.step) + 1, schedule.total_steps + 1):
            batch = meshes.to_device(next(batches), mesh)
            state, metrics = train_step(state, batch, key)
            pending.add(step, metrics)
            if schedule.logs(step):
                pending.drain()
                more = {"lr": float(learning_rate(step - 1)), "damaged": batches.num_damaged}
                writer.write(step, "train", progress.log(more))
            if schedule.checkpoints(step) or stop.signal:
                pending.drain()
                values, score = evaluate(state) if schedule.evaluates(step) else ({}, None)
                progress.evaluated(step, values, writer)
                checkpointer.save(unpack(state), batches.get_state(), score)
            if stop.signal:
                break
        checkpointer.wait()
        if stop.signal:
            progress.say(f"stopped at step {step}, checkpoint saved; run again to continue")
            raise KeyboardInterrupt
    return unpack(state)


class _Pending:
    """Metrics that are still on the device.

    They are read one step late, so that the device never waits for the host; before anything is
    kept, all of them are read, so no checkpoint follows a bad step.
    """

    def __init__(self, progress: _Progress):
        self._progress = progress
        self._steps: collections.deque[tuple[int, Metrics]] = collections.deque()

    def add(self, step: int, metrics: Metrics) -> None:
        self._steps.append((step, metrics))
        self.drain(keep=1)

    def drain(self, keep: int = 0) -> None:
        while len(self._steps) > keep:
            step, on_device = self._steps.popleft()
            metrics = jax.device_get(on_device)
            _check_finite(step, metrics)
            self._progress.add(step, metrics)


def _check_finite(step: int, metrics: dict[str, Any]) -> None:
    bad = not_finite(metrics)
    if bad:
        raise UserError(
            f"step {step}: {', '.join(bad)} is not finite; the last checkpoint is kept. Run again "
            "with a lower --config.optimizer.lr, or with --config.model.precision=float32."
        )


class _Progress:
    """One line that moves on a terminal; a line for each log entry elsewhere."""

    def __init__(self, start: int, total: int, batch_size: int):
        self._bar = tqdm(
            total=total, initial=start, desc="train", unit="step", disable=None, leave=True
        )
        self._total, self._batch_size = total, batch_size
        self._mean = Mean()
        self._since = (time.monotonic(), start)
        self._done = start

    def __enter__(self) -> _Progress:
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
        if self._bar.disable:
            self.say(f"step {self._done}/{self._total}: {text}, {_clock(left)} left")
        else:
            self._bar.set_postfix_str(text)
        return values

    def evaluated(self, step: int, values: dict[str, float], writer: MetricWriter) -> None:
        """Shows and writes the metrics of an evaluation, if there are any."""
        if not values:
            return
        writer.write(step, "val", values)
        # The time an evaluation took is no training time.
        self._since = (time.monotonic(), self._done)
        text = ", ".join(f"{k} {v:.3f}" for k, v in values.items())
        self.say(f"step {step}/{self._total}: validation {text}")

    def say(self, text: str) -> None:
        if self._bar.disable:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.write(text, file=sys.stderr)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
