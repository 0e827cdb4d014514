"""Accuracy of classification over a split, in plain NumPy; of multi-label sets see `multi_label`.

Whatever predicts is handed in as a function, so the same code judges a model in training, a run
folder, or anything else. Everything is counted in integers: padding counts nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from avt_jax import axes
from avt_jax.errors import UserError
from avt_jax.evaluation.fusion import ALONE, WHOLE, FusionReport, FusionTally
from avt_jax.evaluation.multi_label.scores import MultiLabelReport, Scores
from avt_jax.evaluation.multiview import ViewAverage

Batch = dict[str, Any]
Predict = Callable[[Batch], Mapping[str, np.ndarray]]
Total = Callable[[np.ndarray], np.ndarray]
# (probabilities, labels, groups) of real clips, as they are judged.
Judged = Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray], np.ndarray], None]

TOP_K = 5
JOINT = "action"
"""Key of the joint report when there are several label sets: right in all of them at once."""

# Losses are added up as whole numbers of this unit: sums of several processes are then exact.
_LOSS_UNIT = 2.0**-20
_LEAST_P = 1e-12


class ClassReport(TypedDict):
    """One class: its name, share of its clips that were recognised (None without clips), clips."""

    name: str
    accuracy: float | None
    count: int


class ClassificationReport(TypedDict, total=False):
    """What is known of one label set after an evaluation.

    Keys:
      count: clips judged.
      top1: share of clips whose most probable class is the true one, in [0, 1].
      top5: share of clips whose true class is among the five most probable (all, if fewer).
      loss: mean of -log of the true class's probability, in nats, to 1e-4: to compare with other
        evaluations of the same clips.
      mean_class_accuracy: mean of the classes' own accuracies, over classes with clips.
      classes: one `ClassReport` for each class.
      confusion: int64 [y, y] clips; row = true class, column = predicted class.
      fusion: for a model of two modalities; see `evaluation.fusion`.

    The joint report of several label sets has the first three only.
    """

    count: int
    top1: float
    top5: float
    loss: float
    mean_class_accuracy: float
    classes: list[ClassReport]
    confusion: np.ndarray
    fusion: FusionReport


Report = ClassificationReport | MultiLabelReport


def class_ranks(probabilities_by: np.ndarray, labels_b: np.ndarray) -> np.ndarray:
    """How many classes come before the true one.

    Args:
      probabilities_by: [b, y] float, larger = more likely.
      labels_b: [b] int true class.

    Returns:
      [b] int64 in [0, y): 0 = the true class is the first choice. Of equally probable classes the
      one with the lower index comes first, as in `argmax`, so a constant guess earns nothing.
    """
    true_b1 = np.take_along_axis(probabilities_by, labels_b[:, None], axis=1)
    before_by = (probabilities_by == true_b1) & (
        np.arange(probabilities_by.shape[1]) < labels_b[:, None]
    )
    return np.sum((probabilities_by > true_b1) | before_by, axis=1)


def top_combinations(probabilities: Sequence[np.ndarray], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The most probable combinations of one class from each label set.

    A combination is scored by the product of its probabilities, so the k best can only be made of
    each set's own k best; nothing the size of all combinations is built.

    Args:
      probabilities: for each label set, [b, y of that set] float.
      k: how many to return; fewer when fewer exist.

    Returns:
      (classes [b, k, number of label sets] int64, scores [b, k] float64), best first; of equal
      scores the combination that is lower in lexicographic order comes first.
    """
    best = [np.argsort(-p_by, axis=1, kind="stable")[:, :k] for p_by in probabilities]
    pairs = zip(probabilities, best, strict=True)
    scores = [np.take_along_axis(p_by, best_bk, axis=1) for p_by, best_bk in pairs]
    return combine_best(best, scores, [p_by.shape[1] for p_by in probabilities], k)


def combine_best(
    best: Sequence[np.ndarray], scores: Sequence[np.ndarray], sizes: Sequence[int], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same from each label set's own best classes.

    Args:
      best: for each label set, [b, k or all] int classes, most probable first.
      scores: the same of their probabilities.
      sizes: number of classes of each set.
      k: how many to return.

    Returns:
      As `top_combinations`.
    """
    batch = best[0].shape[0]
    score_bj = np.ones((batch, 1))
    index_bj = np.zeros((batch, 1), np.int64)
    for best_bk, p_bk, size in zip(best, scores, sizes, strict=True):
        p_bk = p_bk.astype(np.float64)
        score_bj = (score_bj[:, :, None] * p_bk[:, None]).reshape(batch, -1)
        index_bj = (index_bj[:, :, None] * size + best_bk[:, None]).reshape(batch, -1)
    order_bk = np.lexsort((index_bj, -score_bj), axis=1)[:, :k]
    index_bk = np.take_along_axis(index_bj, order_bk, axis=1)
    classes_bkl = np.stack(np.unravel_index(index_bk, tuple(sizes)), axis=-1)
    return classes_bkl, np.take_along_axis(score_bj, order_bk, axis=1)


class Confusion:
    """Adds up one label set's predictions.

    Args:
      class_names: in the order of the model's outputs.
    """

    def __init__(self, class_names: Sequence[str]):
        self._names = tuple(class_names)
        self._confusion_yy = np.zeros((len(self._names), len(self._names)), np.int64)
        self._top5 = self._loss = 0

    def add(self, probabilities_by: np.ndarray, labels_b: np.ndarray) -> np.ndarray:
        """Adds real examples (leave padding out), [b, y] float and [b] int; [b] which are right."""
        ranks_b = class_ranks(probabilities_by, labels_b)
        true_b = np.take_along_axis(probabilities_by, labels_b[:, None], axis=1)[:, 0]
        loss_b = -np.log(np.maximum(true_b.astype(np.float64), _LEAST_P))
        self._loss += int(np.round(loss_b / _LOSS_UNIT).astype(np.int64).sum())
        np.add.at(self._confusion_yy, (labels_b, np.argmax(probabilities_by, axis=1)), 1)
        self._top5 += int(np.sum(ranks_b < TOP_K))
        right_b: np.ndarray = ranks_b == 0
        return right_b

    def combine(self, total: Total, index: int = 0, processes: int = 1) -> None:
        """Adds what others have counted."""
        counts = total(np.append(self._confusion_yy, [self._top5, self._loss]))
        self._confusion_yy = counts[:-2].reshape(self._confusion_yy.shape)
        self._top5, self._loss = map(int, counts[-2:])

    def report(self) -> ClassificationReport:
        """The report so far; at least one example must have been added."""
        count = int(self._confusion_yy.sum())
        right_y, count_y = np.diagonal(self._confusion_yy), self._confusion_yy.sum(axis=1)
        present_y = count_y > 0
        return ClassificationReport(
            count=count,
            top1=float(right_y.sum() / count),
            top5=self._top5 / count,
            loss=round(self._loss * _LOSS_UNIT / count, 4),
            mean_class_accuracy=float(np.mean(right_y[present_y] / count_y[present_y])),
            classes=[
                ClassReport(name=name, accuracy=float(right / n) if n else None, count=int(n))
                for name, right, n in zip(self._names, right_y, count_y, strict=True)
            ],
            confusion=self._confusion_yy.copy(),
        )


class Joint:
    """Adds up how often all label sets are right at once (verb and noun: the action)."""

    def __init__(self) -> None:
        self._count = self._top1 = self._top5 = 0

    def add(self, probabilities: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> np.ndarray:
        """Adds real examples, for each label set [b, y] float and [b] int; [b] which are right."""
        classes_bkl, _ = top_combinations(probabilities, TOP_K)
        hit_bk = np.all(classes_bkl == np.stack(labels, axis=-1)[:, None], axis=-1)
        self._count += len(hit_bk)
        self._top1 += int(hit_bk[:, 0].sum())
        self._top5 += int(hit_bk.any(axis=1).sum())
        right_b: np.ndarray = hit_bk[:, 0]
        return right_b

    def combine(self, total: Total) -> None:
        """Adds what others have counted."""
        counts = total(np.array([self._count, self._top1, self._top5], np.int64))
        self._count, self._top1, self._top5 = map(int, counts)

    def report(self) -> ClassificationReport:
        """The report so far; at least one example must have been added."""
        return ClassificationReport(
            count=self._count, top1=self._top1 / self._count, top5=self._top5 / self._count
        )


class _Evaluation:
    """All label sets of one evaluation."""

    def __init__(
        self,
        label_sets: Mapping[str, Sequence[str]],
        num_views: int,
        judged: Judged | None,
        multi_label: Collection[str],
    ):
        self._views = ViewAverage(num_views) if num_views > 1 else None
        self._sets: dict[str, Confusion | Scores] = {
            name: Scores(classes) if name in multi_label else Confusion(classes)
            for name, classes in label_sets.items()
        }
        self._judged = judged
        # A data set that labels actions itself keeps its own.
        is_joint = len(label_sets) > 1 and JOINT not in label_sets and not multi_label
        self._joint = Joint() if is_joint else None
        self.right: dict[str, np.ndarray] = {}  # of the clips added last

    def add(self, probabilities: Mapping[str, np.ndarray], batch: Batch) -> int:
        if self._views:
            probabilities, batch = self._views.add(probabilities, batch)
        valid_b = np.asarray(batch[axes.VALID], bool)
        self.right = {}
        if not valid_b.any():
            return 0
        found, labels = [], []
        for name, counted in self._sets.items():
            p_by = np.asarray(probabilities[name])[valid_b]
            _check_finite(p_by, name, batch, valid_b)
            labels_b = np.asarray(batch[axes.LABELS][name])[valid_b].astype(np.int64)
            self.right[name] = counted.add(p_by, labels_b)
            found.append(p_by)
            labels.append(labels_b)
        if self._joint:
            self.right[JOINT] = self._joint.add(found, labels)
        if self._judged:
            found_by_name = dict(zip(self._sets, found, strict=True))
            labels_by_name = dict(zip(self._sets, labels, strict=True))
            self._judged(found_by_name, labels_by_name, np.asarray(batch[axes.GROUP])[valid_b])
        return int(valid_b.sum())

    def combine(self, total: Total, index: int, processes: int) -> None:
        """Adds what others have counted."""
        if self._views and self._views.num_waiting:
            raise ValueError(f"the last record lacks views: {self._views.num_waiting} came")
        for counted in self._sets.values():
            counted.combine(total, index, processes)
        if self._joint:
            self._joint.combine(total)

    @property
    def joint(self) -> tuple[str, ...]:
        """(JOINT,) where there is such a report."""
        return (JOINT,) if self._joint else ()

    def report(self) -> dict[str, Report]:
        reports: dict[str, Report] = {name: one.report() for name, one in self._sets.items()}
        return reports | {JOINT: self._joint.report()} if self._joint else reports


def _check_finite(p_by: np.ndarray, name: str, batch: Batch, valid_b: np.ndarray) -> None:
    bad_b = ~np.isfinite(p_by).all(axis=1)
    if bad_b.any():
        first = np.flatnonzero(valid_b)[np.argmax(bad_b)]
        which = batch[axes.ID][first] if axes.ID in batch else f"number {first} of its batch"
        raise UserError(
            f"the model's probabilities for {name!r} of clip {which} are not finite; "
            "its parameters are broken, use an earlier checkpoint."
        )


def evaluate(
    predict: Predict,
    batches: Iterable[Batch],
    label_sets: Mapping[str, Sequence[str]],
    *,
    num_views: int = 1,
    total: Total = np.asarray,
    multi_label: Collection[str] = (),
    part: tuple[int, int] = (0, 1),
) -> dict[str, Report]:
    """Judges predictions over a split.

    Args:
      predict: batch -> {label set: probabilities [b, y] float}.
      batches: padded batches, once through (see `avt_jax.axes`).
      label_sets: {label set: class names}.
      num_views: rows that each clip has, one after another; their probabilities are averaged.
      total: the sum of integers over all who judge a part of the split.
      multi_label: the label sets whose labels are [b, y] of 0 and 1.
      part: (number of this process, how many there are).

    Returns:
      {label set: report}; with several label sets, none of them multi-label, also `JOINT`.

    Raises:
      UserError: there is no clip, or a probability is not finite.
    """
    return evaluate_variants(
        predict,
        batches,
        label_sets,
        {WHOLE: dict},
        num_views=num_views,
        total=total,
        multi_label=multi_label,
        part=part,
    )[WHOLE]


def evaluate_variants(
    predict: Predict,
    batches: Iterable[Batch],
    label_sets: Mapping[str, Sequence[str]],
    variants: Mapping[str, Callable[[Batch], Batch]],
    *,
    num_views: int = 1,
    on_batch: Callable[[int], None] = lambda num_clips: None,
    total: Total = np.asarray,
    judged: Mapping[str, Judged] | None = None,
    multi_label: Collection[str] = (),
    part: tuple[int, int] = (0, 1),
) -> dict[str, dict[str, Report]]:
    """Judges predictions on several versions of every batch; the data is read once.

    Args:
      predict: batch -> {label set: probabilities [b, y] float}.
      batches: padded batches, once through (see `avt_jax.axes`).
      label_sets: {label set: class names}.
      variants: {name: batch -> changed copy}, for example `silence_audio` bound to its constant.
      num_views: rows that each clip has, one after another; their probabilities are averaged.
      on_batch: called with the number of real clips after each batch.
      total: the sum of integers over all who judge a part of the split.
      judged: {variant: called with the clips of each batch, whose views are averaged, as it sees
        them}; the batches then hold `axes.GROUP`.
      multi_label, part: as for `evaluate`.

    Returns:
      {variant: {label set: report}}; with several label sets, none of them multi-label, also
      `JOINT`. With the variants "", "audio" and "video" the first has "fusion" in each report.

    Raises:
      UserError: there is no clip, or a probability is not finite.
    """
    evaluations = {
        name: _Evaluation(label_sets, num_views, (judged or {}).get(name), multi_label)
        for name in variants
    }
    has_both = {WHOLE, *ALONE.values()} <= variants.keys()
    names = (*label_sets, *evaluations[WHOLE].joint) if has_both else ()
    fusion = {name: FusionTally() for name in names}
    count = 0
    for batch in batches:
        num_clips = 0
        for name, change in variants.items():
            changed = change(batch)
            num_clips = evaluations[name].add(predict(changed), changed)
        for name, tally in fusion.items() if num_clips else ():
            tally.add({variant: one.right[name] for variant, one in evaluations.items()})
        count += num_clips
        on_batch(num_clips)
    for evaluation in evaluations.values():
        evaluation.combine(total, *part)
    if not int(total(np.array([count]))[0]):
        raise UserError("there is no clip to evaluate; give a split that is not empty.")
    reports = {name: evaluation.report() for name, evaluation in evaluations.items()}
    for name, tally in fusion.items():
        tally.combine(total)
        reports[WHOLE][name]["fusion"] = tally.report()
    return reports
