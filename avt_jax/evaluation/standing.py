"""Where an accuracy stands: beside chance, the largest class, the training split and a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avt_jax.evaluation.classification import JOINT, TOP_K, Report
from avt_jax.evaluation.clips import ClipPredictions
from avt_jax.evaluation.intervals import Interval, class_mean_interval, mean_interval
from avt_jax.evaluation.multi_label import standing as multi_label
from avt_jax.evaluation.multi_label.standing import RankingStanding

# Points of accuracy between training and evaluated clips that say: learned by heart.
_OVERFITTED = 0.2
# On its own training clips: below this share it has not learned these either.
_UNDERFITTED = 0.6


@dataclass(frozen=True)
class Reference:
    """What is known beside the model's own predictions.

    Attributes:
      train_reports: {label set: report} on training clips; {} = not measured.
      train_labels: {label set: [n] int class of training clips}; {} = not known.
      baseline: {label set: [n] int64 class that the baseline predicts for each evaluated clip, -1
        where it cannot; of a multi-label set [n, y] float scores, 0 there}; {} = not computed.
      train: the predictions for the clips of `train_reports`, for the interval.
    """

    train_reports: Mapping[str, Report]
    train_labels: Mapping[str, np.ndarray]
    baseline: Mapping[str, np.ndarray]
    train: ClipPredictions | None = None


@dataclass(frozen=True)
class Standing:
    """Where the accuracies of one label set stand.

    Attributes:
      top1: with its interval over sources.
      top5: the same of the five most probable classes.
      class_mean: mean of the classes' own accuracies; None of the joint report.
      chance: 1 / classes.
      majority: share of the evaluated clips that are of the class `majority_class`.
      majority_class: the most frequent class of the training clips, where these are known.
      train_top1: on training clips, None where not measured.
      baseline_top1: of the baseline, with its interval; None where not computed.
      ahead: how much more clips the model has right than the baseline, clip by clip.
      train: the interval of `train_top1`, where single clips are known.
      silenced: {modality: top-1 without it, with its interval}.
      classes: accuracy of each class with its interval, None where it has no clip; () of the joint
        report.
    """

    top1: Interval
    top5: Interval
    class_mean: Interval | None
    chance: float
    majority: float
    majority_class: str
    train_top1: float | None
    baseline_top1: Interval | None
    ahead: Interval | None
    train: Interval | None
    silenced: Mapping[str, Interval]
    classes: Sequence[Interval | None]

    def to_dict(self) -> dict[str, Any]:
        """As in results.json."""
        found: dict[str, Any] = {
            "top1_interval": _ends(self.top1),
            "top5_interval": _ends(self.top5),
            "sources": self.top1.groups,
            "chance": self.chance,
            "majority": self.majority,
        }
        if self.class_mean:
            found["mean_class_accuracy_interval"] = _ends(self.class_mean)
        if self.classes:
            found["classes_interval"] = [one and _ends(one) for one in self.classes]
        found |= {f"top1_{k}_silenced_interval": _ends(one) for k, one in self.silenced.items()}
        if self.train_top1 is not None:
            found["train_top1"] = self.train_top1
        if self.train:
            found["train_top1_interval"] = _ends(self.train)
        if self.baseline_top1 and self.ahead:
            found |= {
                "baseline_top1": self.baseline_top1.value,
                "baseline_top1_interval": _ends(self.baseline_top1),
                "ahead_of_baseline": self.ahead.value,
                "ahead_of_baseline_interval": _ends(self.ahead),
            }
        return found


def _ends(interval: Interval) -> list[float]:
    return [interval.low, interval.high]


def standings(
    found: ClipPredictions,
    label_sets: Mapping[str, Sequence[str]],
    reference: Reference,
    group_n: np.ndarray | None = None,
) -> dict[str, Standing | RankingStanding]:
    """Where each label set stands.

    Args:
      found: the model's predictions for the evaluated clips.
      label_sets: {label set: class names}.
      reference: what else is known.
      group_n: [n] groups of sources that the intervals draw; None = the sources.
    """
    groups = found.group_n if group_n is None else group_n
    names = [name for name, one in found.sets.items() if one.labels_ny is None]
    if len(found.sets) > 1 and JOINT not in found.sets and len(names) == len(found.sets):
        names.append(JOINT)
    made: dict[str, Standing | RankingStanding] = {
        name: _standing(name, found, label_sets, reference, groups) for name in names
    }
    for name, one in found.sets.items():
        if one.labels_ny is None:
            continue
        trained: Any = reference.train_reports.get(name, {})
        made[name] = multi_label.ranking_standing(
            one, groups, train_map=trained.get("mAP"), baseline_ny=reference.baseline.get(name)
        )
    return made


def _standing(
    name: str,
    found: ClipPredictions,
    label_sets: Mapping[str, Sequence[str]],
    reference: Reference,
    groups: np.ndarray,
) -> Standing:
    # Of the joint report all label sets count at once.
    sets = [name] if name in found.sets else list(found.sets)
    label_nj = np.stack([found.sets[one].label_n for one in sets], axis=1)
    known = label_nj
    if all(one in reference.train_labels for one in sets):
        known = np.stack([reference.train_labels[one] for one in sets], axis=1)
    answers, counts = np.unique(known, axis=0, return_counts=True)
    constant = answers[counts.argmax()]
    right_n = found.right_n(name).astype(np.float64)
    baseline, ahead = None, None
    if all(one in reference.baseline for one in sets):
        other_nj = np.stack([reference.baseline[one] for one in sets], axis=1)
        other_n = (other_nj == label_nj).all(axis=1).astype(np.float64)
        baseline = mean_interval(other_n, groups)
        ahead = mean_interval(right_n - other_n, groups)
    trained = reference.train_reports.get(name)
    of_train = reference.train if trained else None

    def top1(one: ClipPredictions, groups_n: np.ndarray) -> Interval:
        return mean_interval(one.right_n(name).astype(np.float64), groups_n)

    return Standing(
        mean_interval(right_n, groups),
        mean_interval(found.within_n(name, TOP_K).astype(np.float64), groups),
        class_mean_interval(right_n, label_nj[:, 0], groups) if name in found.sets else None,
        float(np.prod([1 / len(label_sets[one]) for one in sets])),
        float((label_nj == constant).all(axis=1).mean()),
        " ".join(label_sets[one][y] for one, y in zip(sets, constant, strict=True)),
        _top1(trained),
        baseline,
        ahead,
        top1(of_train, of_train.group_n) if of_train else None,
        {modality: top1(one, groups) for modality, one in found.silenced.items()},
        _by_class(found, name, len(label_sets[name]), groups) if name in found.sets else (),
    )


def _by_class(
    found: ClipPredictions, name: str, number: int, groups: np.ndarray
) -> tuple[Interval | None, ...]:
    """The accuracy of each class; None of a class without clips."""
    right_n = found.right_n(name).astype(np.float64)
    made = []
    for y in range(number):
        of_class_n = found.sets[name].label_n == y
        some = of_class_n.any()
        made.append(mean_interval(right_n[of_class_n], groups[of_class_n]) if some else None)
    return tuple(made)


def _top1(report: Mapping[str, Any] | None) -> float | None:
    return report["top1"] if report else None


def verdict(name: str, standing: Standing | RankingStanding) -> str:
    """Whether the model is any good, in a sentence or two.

    Args:
      name: of the label set.
      standing: where it stands.
    """
    if isinstance(standing, RankingStanding):
        return multi_label.verdict(name, standing)
    ahead, top1 = standing.ahead, standing.top1
    if top1.low <= max(standing.majority, standing.chance):
        # One source, or no more right than a constant answer.
        said = (
            f"{name}: the model is not shown to be better than one that always gives the same "
            f"answer ({_percent(max(standing.majority, standing.chance))})"
        )
    elif ahead is None:
        return f"{name}: better than always giving the same answer ({_percent(standing.majority)})."
    elif ahead.low > 0:
        return (
            f"{name}: the model beats the baseline by {100 * ahead.value:.1f} points (95 % "
            f"interval {100 * ahead.low:.1f} to {100 * ahead.high:.1f})."
        )
    elif ahead.high < 0:
        said = (
            f"{name}: the model does NOT beat the baseline, it is {-100 * ahead.value:.1f} points "
            f"behind (95 % interval {-100 * ahead.high:.1f} to {-100 * ahead.low:.1f})"
        )
    else:
        said = (
            f"{name}: the model is NOT shown to beat the baseline: {100 * ahead.value:+.1f} "
            f"points, 95 % interval {100 * ahead.low:.1f} to {100 * ahead.high:+.1f}"
        )
    return f"{said}. {_why(standing)}"


def _why(standing: Standing) -> str:
    """What the numbers say of the reason, and what to do."""
    trained, top1 = standing.train_top1, standing.top1
    where = "docs/own_videos.md, 'Accuracy is poor', has the remedies"
    if trained is None:
        return f"{where}."
    if trained < _UNDERFITTED:
        return (
            f"On its own training clips it has {_percent(trained)}: it has not learned these yet, "
            f"so train longer or with a larger learning rate; {where}."
        )
    if trained - top1.value > _OVERFITTED:
        return (
            f"On its own training clips it has {_percent(trained)}: it knows them by heart, so it "
            f"needs more sources, released weights or more variation; {where}."
        )
    return (
        f"With {top1.groups} sources the interval is {100 * (top1.high - top1.low):.0f} points "
        f"wide: evaluate on more; {where}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
