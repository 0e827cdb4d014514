"""The training loop: feeds the jitted step, logs, evaluates, checkpoints, and can stop."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from avt_jax import axes
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
from avt_jax.training.metrics import not_finite
from avt_jax.training.observing import trackers
from avt_jax.training.observing.clock import DATA, DEVICE
from avt_jax.training.observing.progress import Progress
from avt_jax.training.observing.watch import Watch
from avt_jax.training.patience import Patience
from avt_jax.training.processes import agree, peers
from avt_jax.training.processes.stop import Interrupted, Stopped, StopRequest
from avt_jax.training.state import TrainState
from avt_jax.training.step import TrainStep, as_it_is
from avt_jax.training.writer import MetricWriter, NoWriter


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
    evaluate_raw: bool = setting(
        True,
        "with averaged parameters (config.optimizer.ema_decay), evaluations judge those that are "
        "trained, too, so they predict twice; the averaged ones choose the best checkpoint",
    )
    patience: int = setting(
        0,
        "evaluations in a row without a better validation score that end the training early; 0 = "
        "it goes on to the end",
        at_least=0,
        at_most=10**6,
    )
    keep_last: int = setting(2, "newest checkpoints kept", at_least=1, at_most=10**6)
    keep_best: int = setting(
        1, "checkpoints of highest validation score kept", at_least=0, at_most=10**6
    )

    writers: tuple[str, ...] = setting(
        ("jsonl", "tensorboard"),
        "where metrics go; wandb and mlflow are extras",
        choices=("jsonl", "tensorboard", *trackers.NAMES),
    )
    log_images: bool = setting(
        True,
        "at evaluations, draw for TensorBoard what the model reconstructs of four clips, if it is "
        "trained to",
    )

    def check(self) -> None:
        """Refuses a length or interval in two units, and metrics without metrics.jsonl."""
        for prefix in ("", "log_every", "eval_every", "checkpoint_every"):
            chosen_unit(self, prefix)
        if "jsonl" not in self.writers:
            raise UserError(
                f"config.train.writers is {self.writers}; name 'jsonl' too, a run that is "
                "continued or evaluated reads it."
            )
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


# State as the step takes it, and how to ask for the number of a signal to stop -> (validation
# metrics, score or None: higher is better). Raises `Interrupted` when it is left because of one.
Evaluate = Callable[[TrainState, Callable[[], int]], tuple[dict[str, float], float | None]]


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
    writer: MetricWriter | NoWriter,
    rates: Callable[[int], Mapping[str, Any]],
    evaluate: Evaluate,
    unpack: Callable[[TrainState], TrainState] = as_it_is,
    max_damaged: int | None = None,
    evaluation_is_due: bool = False,
    watch: Watch | None = None,
    patience: Patience | None = None,
) -> TrainState:
    """Trains from `state.step` to `schedule.total_steps`, or until patience is at its end.

    Args:
      state, train_step: where to start, in the form that the jitted step takes.
      batches: endless; its position is saved with every checkpoint.
      key: PRNG key of the run; the step folds it with the step number.
      mesh, schedule: where, and when to log, evaluate and save.
      batch_size: clips per step over all devices, for the rate shown.
      checkpointer, writer: where states and metrics go.
      rates, evaluate: step -> {"lr": learning rate, ...}, to be logged; see `Evaluate`.
      unpack: from the form that the step takes to the one that is saved.
      max_damaged: most records that all processes together may pass over; None = any number.
      evaluation_is_due: whether the state's own step is still to be evaluated.
      watch, patience: measure, and end it early; None = new ones.

    Returns:
      The final state, unpacked.

    Raises:
      UserError: a loss is not finite; names step and terms. The last good checkpoint stays.
      Stopped: after Ctrl-C or SIGTERM of any process, once a checkpoint is saved.
    """
    last, stopped = int(state.step), 0
    watch, patience = watch or Watch(), patience or Patience()
    train_step = watch.counting(train_step)
    with Progress(last, schedule.total_steps, batch_size) as progress, StopRequest() as stop:
        pending = _Pending(progress, stop, max_damaged, watch)
        keeper = _Keeper(batches, checkpointer, writer, evaluate, unpack, pending, patience)
        if evaluation_is_due:
            stopped = keeper.keep(last, state, evaluates=True, replaces=True)
        while last < schedule.total_steps and not stopped and not patience.is_over:
            state, metrics = train_step(state, _next_batch(last + 1, batches, pending, mesh), key)
            last += 1
            pending.add(last, metrics)
            if schedule.logs(last):
                keeper.log(last, {name: float(rate) for name, rate in rates(last - 1).items()})
            stopped = pending.stop
            if schedule.checkpoints(last) or stopped:
                stopped = keeper.keep(last, state, evaluates=schedule.evaluates(last))
        keeper.end(last, stopped)
    return unpack(state)


@dataclass(frozen=True)
class _Keeper:
    """Logs, evaluates and saves; the fields are those of `fit`."""

    batches: Batches
    checkpointer: Checkpointer
    writer: MetricWriter | NoWriter
    evaluate: Evaluate
    unpack: Callable[[TrainState], TrainState]
    pending: _Pending
    patience: Patience

    def log(self, step: int, more: dict[str, float]) -> None:
        """Writes and shows the training metrics since the last time."""
        self.pending.drain()
        damaged = max(self.pending.num_damaged, self.batches.num_damaged)
        more = more | {"damaged": damaged} | self.pending.watch.values()
        self.writer.write(step, "train", self.pending.progress.log(more))

    def keep(self, step: int, state: TrainState, *, evaluates: bool, replaces: bool = False) -> int:
        """Returns the signal after which the training stops now, 0 without one."""
        self.pending.drain()
        with self.pending.watch.clock.stopped():
            return self._keep(step, state, evaluates=evaluates, replaces=replaces)

    def _keep(self, step: int, state: TrainState, *, evaluates: bool, replaces: bool) -> int:
        values: dict[str, float] = {}
        score, interrupted = None, 0
        if evaluates:
            peers.doing(f"evaluating after step {step}")
            try:
                values, score = self.evaluate(state, self.pending.request.asked)
                self._draw(step, state)
            except Interrupted as error:
                interrupted = error.signal
        if score is not None:
            self.patience.saw(score)
        self.pending.progress.evaluated(step, values, self.writer)
        peers.doing(f"saving after step {step}")
        self.writer.sync()
        if not replaces or score is not None:
            self.pending.watch.saves(step)
            position = self.batches.get_state()
            self.checkpointer.save(self.unpack(state), position, score, replace=replaces)
        return interrupted or self.pending.stop

    def _draw(self, step: int, state: TrainState) -> None:
        if self.pending.watch.pictures:
            for name, image_hwc in self.pending.watch.pictures(state).items():
                self.writer.write_image(step, name, image_hwc)

    def end(self, step: int, stopped: int) -> None:
        """Waits for what is being saved; raises where a signal stopped the training."""
        self.checkpointer.wait()
        if self.patience.is_over and not stopped:
            self.pending.progress.say(
                f"ended at step {step}: {self.patience.most} evaluations in a row without a better "
                "validation score (config.train.patience)"
            )
        if summary := self.pending.watch.summary():
            self.pending.progress.say(summary)
        if stopped:
            self.pending.progress.say(
                f"stopped at step {step}, checkpoint saved; run again to continue"
            )
            raise Stopped(stopped)


def _next_batch(step: int, batches: Batches, pending: _Pending, mesh: Mesh) -> dict[str, Any]:
    """A step's batch on the devices; of several processes with what each is to tell the others."""
    pending.watch.begins(step)
    peers.doing(f"reading the data of step {step}")
    with pending.watch.clock.waiting(DATA):
        batch = next(batches)
    peers.doing(f"in step {step}")
    if jax.process_count() > 1:
        rows = len(next(iter(batch.values())))
        batch = batch | {
            axes.NOTES: agree.notes(pending.request.asked(), batches.num_damaged, rows)
        }
    return meshes.to_device(batch, mesh)


class _Pending:
    """Metrics that are still on the device.

    They are read one step late, so that the device never waits for the host; before anything is
    kept, all of them are read, so no checkpoint follows a bad step. With them comes what other
    processes have to say, to all of them at the same step.
    """

    def __init__(
        self, progress: Progress, stop: StopRequest, max_damaged: int | None, watch: Watch
    ):
        self.progress, self._max_damaged = progress, max_damaged
        self.request, self.watch = stop, watch
        self._steps: collections.deque[tuple[int, Metrics]] = collections.deque()
        self._stop = 0
        self.num_damaged = 0

    @property
    def stop(self) -> int:
        """The signal after which all processes stop, 0 without one."""
        return self._stop if jax.process_count() > 1 else self.request.asked()

    def add(self, step: int, metrics: Metrics) -> None:
        if told := self.watch.handed_over(step, metrics):
            self.progress.say(told)
        self._steps.append((step, metrics))
        # The first step compiles: its end is where the clock starts.
        self.drain(keep=1 if self.watch.clock.runs else 0)

    def drain(self, keep: int = 0) -> None:
        while len(self._steps) > keep:
            step, on_device = self._steps.popleft()
            with self.watch.clock.waiting(DEVICE):
                metrics = jax.device_get(on_device)
            self.watch.clock.step()
            self.request.begun()
            if axes.NOTES in metrics:
                self._stop, self.num_damaged = map(int, metrics.pop(axes.NOTES))
            _check_finite(step, metrics)
            self.progress.add(step, metrics)
            if self._max_damaged is not None and self.num_damaged > self._max_damaged:
                raise UserError(
                    f"step {step}: the processes met {self.num_damaged} damaged records and "
                    f"config.data.max_damaged is {self._max_damaged}; mend the shards ('avt shards "
                    "verify' names the records) or give a larger --config.data.max_damaged."
                )


def _check_finite(step: int, metrics: dict[str, Any]) -> None:
    bad = not_finite(metrics)
    if bad:
        raise UserError(
            f"step {step}: {', '.join(bad)} is not finite; the last checkpoint is kept. Run again "
            "with a lower --config.optimizer.lr, or with --config.model.precision=float32."
        )
