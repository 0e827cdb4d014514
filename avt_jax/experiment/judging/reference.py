"""What an evaluation is compared with: the run on its training clips, and the baseline."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from avt_jax.data import records
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.manifests.group_splits import group_names
from avt_jax.data.records.generated import is_generated
from avt_jax.errors import UserError
from avt_jax.evaluation import baseline, classification
from avt_jax.evaluation.clips import ClipPredictions, Keeper
from avt_jax.evaluation.fusion import WHOLE
from avt_jax.evaluation.standing import Reference
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.splits import OwnData, is_source, open_source, own_split, read_info
from avt_jax.host.progress import progress_bar
from avt_jax.inference.load import LoadedRun
from avt_jax.training.processes import agree

MAX_TRAIN_CLIPS = 1000
"""Training clips that are judged, spread evenly."""


@dataclass(frozen=True)
class Some:
    """Some clips of a source."""

    source: Any
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return records.lazy_reader(self.source)(self.indices[index])


def training_source(data: DataConfig, own: OwnData | None) -> Any:
    """The clips that were trained on, or None where there is no such split here."""
    if own is not None:
        return own_split(own, "train") if is_source(own.train) else None
    if data.train_split == data.eval_split:
        return None
    info = None if is_generated(data.path) else read_info(data.path, data=data)
    if info is None or info.num_clips(data.train_split):
        with contextlib.suppress(UserError):
            return open_source(data.path, data.train_split, tokens=data.is_tokens)
    return None


def measure_reference(
    experiment: Experiment,
    model: LoadedRun,
    train: Any,
    source: Any,
    data: DataConfig,
    *,
    batch_size: int,
    with_baseline: bool,
) -> Reference:
    """Judges the run on training clips, and the baseline on the evaluated ones.

    Args:
      experiment: of the run.
      model: the run.
      train: the training clips; None leaves all of it unknown.
      source: the evaluated clips.
      data: how clips are read.
      batch_size: clips at once.
      with_baseline: compute it; only the first process does.
    """
    if train is None:
        return Reference({}, {}, {})
    some = Some(train, records.evenly_spread(len(train), MAX_TRAIN_CLIPS))
    clips = replace(data, eval_split=data.train_split, eval_clips=1, eval_crops=1)
    batches = experiment.eval_batches(some, clips, batch_size)
    keeper, label_sets = Keeper(all_classes=False), model.run.label_sets
    with contextlib.closing(batches):
        reports = classification.evaluate_variants(
            model.predict,
            batches,
            label_sets,
            {WHOLE: dict},
            total=agree.total,
            judged={WHOLE: keeper.add},
            multi_label=experiment.multi_label,
            part=(jax.process_index(), jax.process_count()),
        )[WHOLE]
    # Damaged clips are left out.
    count = next(iter(reports.values()))["count"]
    kept = gather_all(keeper, label_sets, count, experiment.multi_label)
    labels: Mapping[str, np.ndarray] = {}
    predicted: Mapping[str, np.ndarray] = {}
    if with_baseline and agree.is_first():
        labels, predicted = _baseline(experiment, train, source)
    return Reference(reports, labels, predicted, kept)


def gather_all(
    keeper: Keeper, label_sets: Mapping[str, Sequence[str]], count: int, several: Collection[str]
) -> ClipPredictions:
    """What all processes have kept, in the order of the split.

    Args:
      keeper: of this process.
      label_sets: {label set: class names}.
      count: clips of all processes.
      several: the multi-label sets.
    """
    return keeper.gather(
        label_sets,
        count=count,
        index=jax.process_index(),
        processes=jax.process_count(),
        total=agree.total,
        multi_label=several,
    )


def _baseline(
    experiment: Experiment, train: Any, source: Any
) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """({label set: classes of training clips}, what `Reference.baseline` holds)."""
    modalities = experiment.parts.model["modalities"]
    of_train, of_source = read_both(train, source)
    used = (baseline.VIDEO, baseline.AUDIO) if modalities == "av" else (modalities,)
    predicted = baseline.Baseline(of_train, used).predict(of_source)
    everywhere = {}
    for name, found in predicted.items():
        nothing = -1 if found.ndim == 1 else 0
        everywhere[name] = np.full((len(source), *found.shape[1:]), nothing, found.dtype)
        everywhere[name][of_source.index_n] = found
    return of_train.labels, everywhere


def read_both(train: Any, source: Any) -> tuple[baseline.Features, baseline.Features]:
    """The features of training clips, at most `baseline.MAX_TRAIN_CLIPS`, and of evaluated ones."""
    most = min(len(train), baseline.MAX_TRAIN_CLIPS)
    with progress_bar(most + len(source), "baseline", "clip", leave=False) as bar:
        of_train = baseline.read_features(train, max_clips=most, on_clip=bar.update)
        return of_train, baseline.read_features(source, on_clip=bar.update)


def clip_names(source: Any) -> list[dict[str, str | float]]:
    """{"id", "source", "start_sec", "end_sec"} of every clip of a split."""
    read = records.lazy_reader(source)
    wanted = ("id", "source", "start_sec", "end_sec")
    return [{key: found[key] for key in wanted} for found in map(read, range(len(source)))]


def groups_of(names: Sequence[Mapping[str, Any]], pattern: str | None) -> np.ndarray:
    """[n] int: which clips belong together.

    Args:
      names: of the clips, see `clip_names`.
      pattern: regular expression as of `avt manifest --group-by`; None = a group for each source.

    Raises:
      UserError: the pattern is none, or is not found in a source's name.
    """
    groups = group_names({i: str(row["source"]) for i, row in enumerate(names)}, pattern)
    return np.unique(np.array(list(groups.values())), return_inverse=True)[1]
