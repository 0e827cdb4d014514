"""How good a trained run is on a split: numbers, tables and pictures."""

from __future__ import annotations

import contextlib
import datetime
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from avt_jax.audio.melspec import LOG_FLOOR
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.records import RecordSource
from avt_jax.errors import UserError
from avt_jax.evaluation import report, standing
from avt_jax.evaluation.classification import evaluate_variants
from avt_jax.evaluation.clips import ClipPredictions, Keeper, rows, write_clips
from avt_jax.evaluation.epic.breakdown import Breakdown
from avt_jax.evaluation.fusion import silence_audio, silence_video
from avt_jax.evaluation.multi_label.standing import RankingStanding
from avt_jax.experiment.assemble import Experiment, Say, silent
from avt_jax.experiment.judging import written
from avt_jax.experiment.judging.epic import Epic, EpicJudge
from avt_jax.experiment.judging.judged import find_shards, open_judged
from avt_jax.experiment.judging.reference import (
    clip_names,
    gather_all,
    groups_of,
    measure_reference,
    training_source,
)
from avt_jax.experiment.parts import parse_saved
from avt_jax.experiment.splits import OwnData, is_source
from avt_jax.inference.load import LoadedRun
from avt_jax.training.checkpoint import Run
from avt_jax.training.processes import agree

Change = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
      results: {label set: {"top1", "top5", "count", "classes", ...}}, as in results.json.
      evaluation: the same with confusion matrices, for `evaluation.report`.
      out_dir: where results.json, tables and pictures are; None where nothing was written.
      files: what was written.
    """

    results: dict[str, Any]
    evaluation: report.Evaluation
    out_dir: Path | None
    files: tuple[Path, ...]

    @property
    def top1(self) -> dict[str, float]:
        """{label set: share of clips whose most probable class is the true one}."""
        return {name: found["top1"] for name, found in self.results.items() if "top1" in found}

    @property
    def score(self) -> dict[str, float]:
        """The same, and mAP for multi-label sets with a clip of some class."""
        found = {name: one.get("mAP") for name, one in self.results.items()}
        return self.top1 | {name: mean for name, mean in found.items() if mean is not None}


def evaluate_run(
    run_dir: str | Path,
    *,
    data: str | OwnData | None = None,
    split: str = "test",
    step: str = "best",
    batch_size: int | None = None,
    clips: int | None = None,
    crops: int | None = None,
    out_dir: str | Path | None = None,
    write: bool = True,
    with_baseline: bool = True,
    group_by: str | None = None,
    table: str = "csv",
    weights: str = "averaged",
    epic: Epic | None = None,
    say: Say = silent,
) -> EvaluationResult:
    """Evaluates a trained run.

    Args:
      run_dir: what `train` wrote.
      data: shard folder, or clips from Python, of which `val` is evaluated; None = the run's.
      split: of the shards.
      step: checkpoint with the "best" validation score, the "last" one, or its step in digits.
      batch_size: clips at once; None = the run's.
      clips: spans of each record whose probabilities are averaged; None = the run's.
      crops: squares of each frame; None = the run's.
      out_dir: where to write; None = RUN_DIR/evaluation-SPLIT, and -raw after it for raw weights.
      write: False writes nothing, draws nothing.
      with_baseline: compare with the baseline, which takes some seconds.
      group_by: regular expression; sources in which its groups read the same are one source to
        the intervals, as for `avt manifest --group-by`.
      table: "csv" or "parquet", of the predictions for single clips.
      weights: of a run that keeps an average, the "averaged" or the "raw" ones.
      epic: judge as EPIC-Kitchens-100's challenge does, too.
      say: is told what goes on, and how long it took.

    Raises:
      UserError: no such run, data that do not fit it, or a folder that cannot be written.
    """
    write, say = (write, say) if agree.is_first() else (False, silent)
    settings = (split, step, weights, batch_size, clips, crops, group_by, epic)
    judging = _Judging(Path(run_dir), data, *settings, say)
    name = f"evaluation-{split}{'-raw' if judging.weights == 'raw' else ''}"
    folder = Path(out_dir) if out_dir else Path(run_dir) / name
    if write:
        _make(folder)
    evaluation, predicted = judging.judge(say)
    submitted: list[Path] = []
    if predicted is not None:
        found = judging.standings(predicted, with_baseline)
        parts, submitted = judging.epic(predicted, say)
        evaluation = replace(evaluation, standings=found, epic=parts)
    files = judging.write(evaluation, predicted, folder, table) if write else []
    files += submitted
    return EvaluationResult(
        report.results(evaluation), evaluation, folder if write else None, tuple(files)
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}; give another folder.") from error


class _Judging:
    """One evaluation: the run, the clips, and how they are read; see `evaluate_run`."""

    def __init__(
        self,
        run_dir: Path,
        data: str | OwnData | None,
        split: str,
        step: str,
        weights: str,
        batch_size: int | None,
        clips: int | None,
        crops: int | None,
        group_by: str | None,
        epic: Epic | None,
        say: Say,
    ):
        self._run_dir = run_dir
        told = None if say is silent else say
        self._model = LoadedRun(run_dir, step, say=told, weights=weights)
        self._trained = self._model.run
        self.weights = self._trained.weights
        if self.weights:
            say(f"the {self.weights} weights; --weights averaged|raw takes either")
        parts = parse_saved(self._trained.config)
        self._own = data if isinstance(data, OwnData) else None
        saved = parts.data
        path = saved.path
        if not isinstance(data, OwnData):
            path = find_shards(data, saved.path, run_dir, say)
        self._data = replace(
            saved,
            path=path,
            eval_split=split,
            eval_clips=clips or saved.eval_clips,
            eval_crops=crops or saved.eval_crops,
        )
        self._source, several = open_judged(self._data, self._trained, data, run_dir)
        self._experiment = Experiment(parts, classes=_classes(self._trained), multi_label=several)
        self._size = batch_size or self._experiment.parts.train.eval_batch_size
        # Read first: a pattern that does not fit should not cost an evaluation.
        known = is_source(self._source) and agree.is_first()
        self._names = clip_names(self._source) if known else []
        self._group_n = groups_of(self._names, group_by)
        if epic and not is_source(self._source):
            raise UserError("epic needs clips by index, and batches were given; give records.")
        sets = self._trained.label_sets
        self._epic = EpicJudge(epic, sets, split, self._names) if epic else None

    def judge(self, say: Say) -> tuple[report.Evaluation, ClipPredictions | None]:
        """What was found, and the predictions for single clips, where these can be known."""
        if self._data.is_tokens:
            say(
                "on cached tokens no modality is silenced, and there is no baseline; 'avt tokens "
                "--join' makes a run that has both"
            )
        about = {
            "run": str(self._run_dir),
            "step": self._trained.step,
            **({"weights": self.weights} if self.weights else {}),
            "data": self._data.path,
            "split": self._data.eval_split,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        return _evaluate(
            self._experiment,
            self._model,
            self._source,
            self._data,
            self._size,
            about,
            say,
            all_classes=True if self._epic else None,
        )

    def standings(
        self, predicted: ClipPredictions, with_baseline: bool
    ) -> dict[str, standing.Standing | RankingStanding]:
        """Beside what the accuracies stand; {} in all processes but the first."""
        reference = measure_reference(
            self._experiment,
            self._model,
            training_source(self._data, self._own),
            self._source,
            self._data,
            batch_size=self._size,
            # The baseline looks at frames and sound.
            with_baseline=with_baseline and not self._data.is_tokens,
        )
        if not agree.is_first():
            return {}
        label_sets = self._trained.label_sets
        return standing.standings(predicted, label_sets, reference, self._group_n)

    def epic(self, predicted: ClipPredictions, say: Say) -> tuple[Breakdown, list[Path]]:
        """(accuracies by part, what was written) where asked for, in the first process."""
        if self._epic is None or not agree.is_first():
            return {}, []
        return self._epic.judge(predicted, self._group_n, say)

    def write(
        self,
        evaluation: report.Evaluation,
        predicted: ClipPredictions | None,
        folder: Path,
        table: str,
    ) -> list[Path]:
        """Writes all tables and pictures."""
        files = written.write(evaluation, folder, self._run_dir)
        if predicted is not None:
            files.append(folder / f"clips.{table}")
            write_clips(files[-1], list(rows(predicted, self._trained.label_sets, self._names)))
            if isinstance(self._source, RecordSource):
                files += written.draw_worst(
                    evaluation, predicted, self._group_n, self._source, folder
                )
        if is_source(self._source):
            files += written.reconstruct(self._trained, self._source, self._data, folder)
        return files


def _classes(trained: Run) -> dict[str, int]:
    return {name: len(names) for name, names in trained.label_sets.items()}


def _variants(modalities: str, data: DataConfig) -> dict[str, Change]:
    """{name: change of a batch}: as it is, and for two modalities with either one silenced."""
    # What encoders make of silence is not among cached tokens.
    if modalities != "av" or data.is_tokens:
        return {"": dict}
    return {
        "": dict,
        "audio": functools.partial(silence_audio, log_floor=LOG_FLOOR),
        "video": functools.partial(silence_video, video_mean=data.video_mean),
    }


def _evaluate(
    experiment: Experiment,
    model: LoadedRun,
    source: Any,
    data: DataConfig,
    size: int,
    about: dict[str, Any],
    say: Say,
    all_classes: bool | None,
) -> tuple[report.Evaluation, ClipPredictions | None]:
    """What was found, and the predictions for single clips, where these can be known."""
    variants = _variants(experiment.parts.model["modalities"], data)
    keepers = {
        name: Keeper(all_classes=False if name else all_classes)
        for name in (variants if is_source(source) else ())
    }
    began = time.monotonic()
    total = len(source) if is_source(source) else None
    with contextlib.ExitStack() as stack:
        batches = experiment.eval_batches(source, data, size)
        if hasattr(batches, "close"):
            stack.enter_context(contextlib.closing(batches))
        bar = stack.enter_context(
            tqdm(
                # Of this process's part, which is as large as the others'.
                total=total and -(-total // jax.process_count()),
                desc=f"evaluate {about['split']}",
                unit="clip",
                disable=None if agree.is_first() else True,
            )
        )
        found = evaluate_variants(
            model.predict,
            batches,
            model.run.label_sets,
            variants,
            num_views=data.eval_views,
            on_batch=bar.update,
            total=agree.total,
            judged={name: keeper.add for name, keeper in keepers.items()},
            multi_label=experiment.multi_label,
            part=(jax.process_index(), jax.process_count()),
        )
    seconds = time.monotonic() - began
    whole = found.pop("")
    count = next(iter(whole.values()))["count"]
    say(f"evaluated {count} clips in {seconds:.1f} s ({count / seconds:.1f} clips/s)")
    about |= {"clips": data.eval_clips, "crops": data.eval_crops, "seconds": round(seconds, 3)}
    evaluation = report.Evaluation(about, whole, found)
    if not keepers:
        return evaluation, None
    sets, several = model.run.label_sets, experiment.multi_label
    predicted = {n: gather_all(one, sets, count, several) for n, one in keepers.items()}
    return evaluation, replace(predicted.pop(""), silenced=predicted)
