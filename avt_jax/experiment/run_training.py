"""Training a run, from a config to a folder with checkpoints."""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from avt_jax.conversion.initial import InitConfig
from avt_jax.errors import UserError
from avt_jax.evaluation.report import is_score
from avt_jax.experiment.assemble import Experiment, Say, silent
from avt_jax.experiment.cost import step_arguments
from avt_jax.experiment.describe import announcement, releases
from avt_jax.experiment.doctor.at_start import warn_at_start
from avt_jax.experiment.parts import parse_saved
from avt_jax.experiment.reconstructions import ValidationPictures, has_pictures
from avt_jax.experiment.splits import OwnData
from avt_jax.experiment.start import weights_of
from avt_jax.host.compiling import Compiling
from avt_jax.host.metric_lines import read_metrics
from avt_jax.host.new_files import remove_partial
from avt_jax.host.output.terminal import show
from avt_jax.profiling import flops
from avt_jax.profiling.peaks import peak_flops
from avt_jax.training import run_folder
from avt_jax.training.checkpoint import Checkpointer, has_checkpoint
from avt_jax.training.inputs import normalisation
from avt_jax.training.loop import fit
from avt_jax.training.observing import trackers
from avt_jax.training.observing.goodput import Goodput
from avt_jax.training.observing.trace import Trace
from avt_jax.training.observing.watch import Watch
from avt_jax.training.patience import Patience
from avt_jax.training.processes import agree
from avt_jax.training.run_lock import RunLock
from avt_jax.training.state import TrainState, with_variables
from avt_jax.training.step import PackedStep
from avt_jax.training.writer import METRICS_FILE, MetricWriter, NoWriter, has_line


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to.

    Attributes:
      state: at its end, on the devices.
      metrics: {"train/loss": ..., "val/top1/label": ...}, the last ones logged.
      best_score: highest validation score of the run, the mean top-1 or mAP over the label sets;
        None where nothing was validated.
      run_dir: the run's folder: `evaluate_run(run_dir)`, `Predictor(run_dir)`.
      metrics_file: all metrics, a JSON object a line.
    """

    state: TrainState
    metrics: dict[str, float]
    best_score: float | None
    run_dir: Path
    metrics_file: Path


def train(
    config: ConfigDict | Mapping[str, Any] | Experiment,
    workdir: str | Path,
    *,
    data: OwnData | None = None,
    say: Say = silent,
    profile_steps: tuple[int, int] | None = None,
    profile_dir: str | Path | None = None,
) -> TrainingResult:
    """Trains, or continues, the run in a folder.

    Progress is shown on stderr. Ctrl-C and SIGTERM save a checkpoint first; the same call goes on
    from it.

    Args:
      config: from `load_config`, or an `Experiment`.
      workdir: the run's folder; made when missing.
      data: clips from Python in place of the shards that the config names.
      say: is told what is trained, line by line; `print` for a notebook.
      profile_steps: (first, last) of the steps that the first process records a trace of, from 1.
      profile_dir: where the trace goes; None = `workdir`/profile.

    Raises:
      UserError: anything wrong in the config, the data, the folder or the steps to profile.
      Stopped: after Ctrl-C or SIGTERM, once a checkpoint is saved; a KeyboardInterrupt.
    """
    _check_no_url(str(workdir))
    say = say if agree.is_first() else silent
    workdir = Path(workdir)
    if isinstance(config, Experiment):
        experiment = config
    else:
        experiment = Experiment(config, data=data, run_dir=workdir)

    def trace() -> Trace | None:
        folder = Path(profile_dir or workdir / "profile")
        total_steps = experiment.schedule.total_steps
        return profile_steps and Trace(*profile_steps, folder, total_steps=total_steps)

    return _result(_train(experiment, workdir, say, agree.together(trace)), workdir)


def _check_no_url(workdir: str) -> None:
    # A path has one slash left of a URL's two.
    found = re.match(r"([a-z][a-z0-9+.-]+):/", workdir)
    if not found:
        return
    way = "give one on a file system that all hosts of the training mount (docs/launch.md)"
    if found[1] == "gs":
        way = (
            "mount the bucket with gcsfuse on every host and give the path there (docs/launch.md "
            "has the command), or start with launch/tpu_pod.sh or launch/gke/submit.sh, which "
            "take gs://"
        )
    raise UserError(f"--workdir {workdir} is not a folder; {way}. Shards may stay where they are.")


def _train(experiment: Experiment, workdir: Path, say: Say, trace: Trace | None) -> TrainState:
    began_sec = time.time()
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(contextlib.closing(RunLock(workdir)))
        agree.by_the_first(lock.take_if_there)
        continues, changes, given, said = _checked(experiment, workdir)
        evaluate = agree.together(lambda: experiment.evaluate)
        birth = experiment.birth
        step = experiment.packed_step(birth.shardings, birth.shapes)
        # Nothing is written before everything that can be wrong in the config has been looked at.
        agree.by_the_first(lambda: trackers.check_installed(experiment.parts.train.writers))
        agree.by_the_first(lambda: _open_folder(experiment, workdir, lock, continues))
        keep = {name: getattr(experiment.parts.train, name) for name in ("keep_last", "keep_best")}
        checkpointer = stack.enter_context(contextlib.closing(Checkpointer(workdir, **keep)))
        restored = checkpointer.restore(birth.shapes, birth.shardings)
        done = int(restored[0].step) if restored else 0
        is_due = _is_evaluation_due(experiment, workdir, done)
        patience = _patience(experiment, workdir, done)
        is_done = done >= experiment.schedule.total_steps or patience.is_over
        if restored and is_done and not is_due:
            said += _record_changes(experiment, workdir, changes, done)
            _say_all(say, said, announcement(experiment, workdir, done, trace, patience.is_over))
            return restored[0]
        batches = agree.together(lambda: experiment.train_batches(say))
        stack.enter_context(contextlib.closing(batches))
        if restored:
            position = restored[1]
            said += agree.together(lambda: batches.set_state(position))
            said += _record_changes(experiment, workdir, changes, done)
        _say_all(say, said, announcement(experiment, workdir, done, trace))
        watch = _watch(experiment, workdir, step, trace, done, began_sec)
        stack.enter_context(contextlib.closing(watch))
        writer = agree.together(lambda: _writer(experiment, workdir, done))
        if agree.is_first() and not continues:
            warn_at_start(experiment, experiment.skeleton.params)
        with watch.compiling or contextlib.nullcontext():
            state = step.pack(restored[0] if restored else _born(experiment, given))
            rates = _rehearse(experiment, state, step, checkpointer, watch)
        return fit(
            state,
            step,
            batches,
            key=experiment.keys[1],
            mesh=experiment.mesh,
            schedule=experiment.schedule,
            batch_size=experiment.parts.train.batch_size,
            checkpointer=checkpointer,
            writer=stack.enter_context(contextlib.closing(writer)),
            rates=rates,
            evaluate=evaluate,
            unpack=step.unpack,
            max_damaged=experiment.parts.data.max_damaged,
            evaluation_is_due=is_due,
            watch=watch,
            patience=patience,
        )


def _checked(
    experiment: Experiment, workdir: Path
) -> tuple[bool, list[run_folder.Change], dict[str, Any], list[str]]:
    """(whether a run goes on, what it does otherwise, weights to start from, what is said of them).

    Raises:
      UserError: something in the config, the data or the folder that a training cannot start with.
    """
    continues = agree.as_the_first(agree.together(lambda: has_checkpoint(workdir)))
    changes: list[run_folder.Change] = []
    given: dict[str, Any] = {}
    said: list[str] = []
    if continues:
        changes = agree.together(lambda: _checked_changes(experiment, workdir))
        kept = agree.together(lambda: run_folder.saved_class_weights(workdir))
        if kept is not None and experiment.parts.losses.class_weights:
            experiment.class_weights = kept
    agree.together(experiment.check_batches)
    if not continues:
        given, said = agree.together(lambda: weights_of(experiment))
    return continues, changes, given, said


def _say_all(say: Say, *groups: Iterable[str]) -> None:
    for line in itertools.chain(*groups):
        say(line)


def _open_folder(experiment: Experiment, workdir: Path, lock: RunLock, continues: bool) -> None:
    """Makes the run's folder, or what a training that was killed has left of it, ready."""
    run_folder.make(workdir)
    lock.take()
    if has_checkpoint(workdir) != continues:
        raise UserError(
            f"another training has written to {workdir} in the meantime; run this command again "
            "to go on from its last checkpoint, or give another --workdir."
        )
    remove_partial(workdir)
    run_folder.prepare(
        workdir,
        experiment.config,
        experiment.splits.info,
        experiment.mesh,
        experiment.shards,
        experiment.class_weights,
    )


def _born(experiment: Experiment, given: dict[str, Any]) -> TrainState:
    """The state of a new run, with the weights that it was given."""
    state, shardings = experiment.init_state()
    return with_variables(state, shardings, given)


def _checked_changes(experiment: Experiment, workdir: Path) -> list[run_folder.Change]:
    """What the run in a folder is to do otherwise from here on.

    Raises:
      UserError: something that a run cannot change; says a way out that works.
    """

    def can_start_anew() -> bool:
        try:
            weights_of(experiment, InitConfig(model=str(workdir), strict=True))
        except UserError:
            return False
        return True

    found = run_folder.saved_config(workdir)
    # One that is gone is written anew.
    saved = experiment.config if found is None else parse_saved(found).to_dict()
    run_folder.check_continuation(
        workdir, saved, experiment.config, experiment.splits.info, can_start_anew
    )
    return run_folder.differences(saved, experiment.config)


def _record_changes(
    experiment: Experiment, workdir: Path, changes: list[run_folder.Change], step: int
) -> list[str]:
    """Writes down what a continued run does otherwise; a line for each."""
    config, shards = experiment.config, experiment.shards
    agree.by_the_first(lambda: run_folder.record_changes(workdir, config, changes, step, shards))
    return [f"from step {step} on: {change.words()}" for change in changes]


def _rehearse(
    experiment: Experiment,
    state: TrainState,
    step: PackedStep,
    checkpointer: Checkpointer,
    watch: Watch,
) -> Callable[[int], Mapping[str, Any]]:
    """Compiles what evaluating, drawing, saving and logging need: nothing is compiled later on.

    Returns:
      Step -> {"lr": learning rate, "lr_held": that of what was held}, to be logged.
    """
    # One program in place of one for each of its operations.
    rates: Callable[[int], Mapping[str, Any]] = jax.jit(experiment.rates)
    rates(0)
    checkpointer.rehearse(step.unpack(state))
    if experiment.splits.val is not None:
        clips = experiment.parts.train.eval_batch_size // jax.process_count()
        _, shapes, _ = step_arguments(experiment, clips)
        batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        experiment.predict_part(state, batch, lambda: 0)
    if has_pictures(experiment):
        pictures = agree.together(lambda: ValidationPictures(experiment))
        pictures.compute(state)
        watch.pictures = pictures
    return rates


def _watch(
    experiment: Experiment,
    workdir: Path,
    step: PackedStep,
    trace: Trace | None,
    done: int,
    began_sec: float,
) -> Watch:
    """What is measured beside the metrics, from `done` steps on."""
    mesh, precision = experiment.mesh, experiment.parts.model["precision"]
    peak = peak_flops(mesh.devices.flat[0].device_kind, precision)

    jitted: Any = step.jitted

    def count(*arguments: Any) -> int:
        # The step has been traced with these, so this takes some hundredths of a second.
        total, repeated = flops.of_step(jitted.trace(*arguments).jaxpr.jaxpr)
        return total - repeated

    watch = Watch(peak_flops=peak and peak * mesh.size, count_flops=count)
    watch.lines = releases(experiment)
    if agree.is_first():
        watch.trace = trace
        watch.compiling = Compiling(_programs(experiment), _to_stderr)
        if done < experiment.schedule.total_steps:
            watch.goodput = Goodput(workdir, step=done, began_sec=began_sec)
    return watch


def _writer(experiment: Experiment, workdir: Path, step: int) -> MetricWriter | NoWriter:
    if not agree.is_first():
        return NoWriter()
    names = experiment.parts.train.writers
    opened = trackers.open_trackers(names, workdir, experiment.config)
    return MetricWriter(workdir, step=step, tensorboard="tensorboard" in names, trackers=opened)


def _is_evaluation_due(experiment: Experiment, workdir: Path, step: int) -> bool:
    """Whether a training was stopped while it evaluated this step."""
    is_due = step > 0 and experiment.schedule.evaluates(step) and experiment.splits.val is not None
    return agree.as_the_first(is_due and not has_line(workdir, step, "val"))


def _patience(experiment: Experiment, workdir: Path, done: int) -> Patience:
    """What is left of it after the evaluations up to a step."""
    most = experiment.parts.train.patience
    scores: list[float] = []
    if agree.is_first() and most and done:
        scores = [score for step, score in _evaluations(workdir) if step <= done]
    return Patience(most, scores).as_the_first()


def _to_stderr(line: str) -> None:
    show(line, file=sys.stderr, flush=True)


def _programs(experiment: Experiment) -> list[Any]:
    """What decides the programs of a training."""
    parts, mesh = experiment.parts, experiment.mesh
    train = parts.train
    sizes = [train.batch_size, train.eval_batch_size, train.accumulate, experiment.classes]
    sizes += list(experiment.multi_label)
    sizes += [(name, one.tolist()) for name, one in experiment.class_weights.items()]
    devices = [mesh.devices.flat[0].device_kind, dict(mesh.shape), jax.process_count()]
    blocks = {k: v for k, v in experiment.config.items() if k not in ("seed", "init", "data")}
    # The learning rate's schedule is in the program.
    blocks["train"] = experiment.schedule.total_steps
    inputs = [experiment.spec, normalisation(parts.data)]
    return ["train", jax.__version__, devices, sizes, inputs, blocks]


def _evaluations(workdir: Path) -> list[tuple[int, float]]:
    """(step, score) of each evaluation that a run has logged: its mean top-1 or mAP."""
    found = []
    for entry in read_metrics(workdir / METRICS_FILE):
        scores = [value for name, value in entry.items() if is_score(name)]
        if entry["split"] == "val" and scores:
            found.append((entry["step"], sum(scores) / len(scores)))
    return found


def _result(state: TrainState, workdir: Path) -> TrainingResult:
    metrics: dict[str, float] = {}
    for entry in read_metrics(workdir / METRICS_FILE):
        values = {name: value for name, value in entry.items() if name not in ("step", "split")}
        metrics |= {f"{entry['split']}/{name}": value for name, value in values.items()}
    best_score = max((score for _, score in _evaluations(workdir)), default=None)
    return TrainingResult(state, metrics, best_score, workdir, workdir / METRICS_FILE)
