"""An evaluation as files and as a table: `results.json`, `confusion_<set>.csv`, the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from avt_jax.evaluation.classification import ClassificationReport, Report
from avt_jax.evaluation.epic import breakdown
from avt_jax.evaluation.fusion import sentence
from avt_jax.evaluation.intervals import Interval
from avt_jax.evaluation.multi_label import report as several
from avt_jax.evaluation.multi_label import standing as several_standing
from avt_jax.evaluation.multi_label.scores import MultiLabelReport
from avt_jax.evaluation.multi_label.standing import RankingStanding
from avt_jax.evaluation.standing import Standing
from avt_jax.host.new_files import replacing
from avt_jax.host.output.cells import CellWriter
from avt_jax.host.output.tables import PlainTable

RESULTS_FILE = "results.json"
# Not an identifier, so no label set can be called that.
ABOUT = "evaluated-on"
EPIC = "epic-kitchens-100"

_MAX_CLASSES_IN_TABLE = 20
_MAX_NAME = 40  # characters


@dataclass(frozen=True)
class Evaluation:
    """All that one `avt evaluate` found.

    Attributes:
      about: what was evaluated: run, step, data, split.
      reports: {label set: report} of the clips as they are.
      silenced: {"audio" or "video": {label set: report}} with that modality silenced; {} for a
        model that has one modality only.
      standings: {label set: beside what the accuracy stands}; {} where single clips are not known.
      epic: accuracies by part of EPIC-Kitchens-100, where they were asked for.
    """

    about: Mapping[str, Any]
    reports: Mapping[str, Report]
    silenced: Mapping[str, Mapping[str, Report]]
    standings: Mapping[str, Standing | RankingStanding] = field(default_factory=dict)
    epic: breakdown.Breakdown = field(default_factory=dict)

    @property
    def single(self) -> dict[str, ClassificationReport]:
        """The reports of the sets of which a clip has one class."""
        return {n: cast(Any, r) for n, r in self.reports.items() if not several.is_multi_label(r)}

    @property
    def multi(self) -> dict[str, MultiLabelReport]:
        """The reports of the multi-label sets."""
        return {n: cast(Any, r) for n, r in self.reports.items() if several.is_multi_label(r)}

    @property
    def title(self) -> str:
        """What was evaluated."""
        about = self.about
        step = f"step {about['step']}{which_weights(about)}"
        return f"{about['run']}, {step}, split {about['split']!r}"


def which_weights(about: Mapping[str, Any]) -> str:
    """What a title says of the weights: the averaged ones are what is used, so nothing of these."""
    return " (raw weights)" if about.get("weights") == "raw" else ""


def results(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as plain JSON-able values.

    Returns:
      {label set: {"top1", "top5", "count", ..., "audio_silenced": {"top1", "top5"},
      "video_silenced": ..., "fusion": {"mu", ...}, "classes": [{"name", "accuracy", "count"}]}},
      what `Standing.to_dict` gives, and what was evaluated under `ABOUT`. A multi-label set has
      the keys of `MultiLabelReport`. The confusion matrix is left to its own file.
    """
    found: dict[str, Any] = {ABOUT: dict(evaluation.about)}
    if evaluation.epic:
        found[EPIC] = breakdown.to_dict(evaluation.epic)
    for name, report in evaluation.reports.items():
        entry = {k: v for k, v in report.items() if k not in ("classes", "confusion")}
        for modality, reports in evaluation.silenced.items():
            other: Mapping[str, Any] = reports[name]
            entry[f"{modality}_silenced"] = (
                several.main_values(other)
                if several.is_multi_label(other)
                else {k: other[k] for k in ("top1", "top5")}
            )
        if name in evaluation.standings:
            entry |= evaluation.standings[name].to_dict()
        if "classes" in report:
            entry["classes"] = report["classes"]
        found[name] = entry
    return found


def validation(
    reports: Mapping[str, Any], label_sets: Iterable[str]
) -> tuple[dict[str, float], float]:
    """What a training logs of its validation split.

    Args:
      reports: {label set: report}.
      label_sets: those that count.

    Returns:
      ({"top1/<set>", "loss/<set>"} of single-label sets, {"mAP/<set>", "auc/<set>", "hit1/<set>",
      "loss/<set>"} of multi-label ones without what is None, the mean of top-1 and mAP).
    """
    logged: dict[str, float | None] = {}
    for name in label_sets:
        one = reports[name]
        main = several.main_values(one) if several.is_multi_label(one) else {"top1": one["top1"]}
        logged |= {f"{key}/{name}": value for key, value in main.items()}
    logged |= {f"loss/{name}": reports[name]["loss"] for name in label_sets}
    known = {key: value for key, value in logged.items() if value is not None}
    scores = [value for key, value in known.items() if is_score(key)]
    return known, sum(scores) / len(scores) if scores else 0.0


def is_score(name: str) -> bool:
    """Whether a logged metric is one that the best checkpoint is chosen by."""
    return name.startswith(("top1/", "mAP/"))


def write_results(evaluation: Evaluation, out_dir: Path) -> list[Path]:
    """Writes `results.json` and for each label set `confusion_<set>.csv` or `classes_<set>.csv`.

    Args:
      evaluation: what was found.
      out_dir: an existing folder.

    Returns:
      The files written.

    Raises:
      UserError: a file cannot be written.
    """
    written = [out_dir / RESULTS_FILE]
    with replacing(written[0]) as file:
        json.dump(results(evaluation), file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")
    if evaluation.epic:
        written.append(out_dir / "epic.csv")
        breakdown.write(written[-1], evaluation.epic)
    for name, found in evaluation.multi.items():
        written.append(out_dir / f"classes_{name}.csv")
        several.write_class_table(written[-1], found)
    for name, report in evaluation.single.items():
        if "confusion" not in report:
            continue
        written.append(out_dir / f"confusion_{name}.csv")
        names = [entry["name"] for entry in report["classes"]]
        with replacing(written[-1]) as file:
            writer = CellWriter(file)
            writer.row(["true \\ predicted", *names])
            writer.rows([true, *row] for true, row in zip(names, report["confusion"], strict=True))
    return written


def tables(evaluation: Evaluation) -> list[PlainTable]:
    """All that is printed: every label set, beside what it stands, and its classes."""
    found = [accuracy_table(evaluation)] if evaluation.single else []
    if evaluation.multi:
        title = evaluation.title
        found.append(several.set_table(title, evaluation.multi, evaluation.silenced))
    found += [standing_table(name, evaluation) for name in evaluation.standings]
    if evaluation.epic:
        title = f"EPIC-Kitchens-100: {evaluation.about['split']}"
        found.append(breakdown.table(title, evaluation.epic))
    for name, one in evaluation.single.items():
        standing = evaluation.standings.get(name)
        if "classes" in one:
            known = standing.classes if isinstance(standing, Standing) else ()
            found.append(class_table(name, one, known))
    return found + [several.class_table(name, one) for name, one in evaluation.multi.items()]


def notes(evaluation: Evaluation) -> list[str]:
    """What the tables do not say of the label sets, a line each: absent classes, mu."""
    lines = [line for name, one in evaluation.multi.items() for line in several.notes(name, one)]
    fused = {name: one["fusion"] for name, one in evaluation.reports.items() if "fusion" in one}
    return lines + [sentence(name, fusion) for name, fusion in fused.items()]


def accuracy_table(evaluation: Evaluation) -> PlainTable:
    """Accuracies of every single-label set, with either modality silenced beside them."""
    titles = ["clips", "top-1", "top-5", "mean of classes"]
    titles += [f"top-1, no {modality}" for modality in evaluation.silenced]
    table = PlainTable(evaluation.title, "label set", *titles)
    for name, report in evaluation.single.items():
        mean = report.get("mean_class_accuracy")
        table.row(
            name,
            str(report["count"]),
            _percent(report["top1"]),
            _percent(report["top5"]),
            _percent(mean),
            *(_percent(_top1(reports[name])) for reports in evaluation.silenced.values()),
        )
    return table


def standing_table(name: str, evaluation: Evaluation) -> PlainTable:
    """One label set's accuracy beside chance, the largest class, the training split, the baseline.

    Args:
      name: of the label set, which is in `standings`.
      evaluation: what was found.
    """
    found, about = evaluation.standings[name], evaluation.about
    clips = evaluation.reports[name]["count"]
    title = f"{name}: {about['split']}, {clips} clips"
    if isinstance(found, RankingStanding):
        others: Any = {key: reports[name] for key, reports in evaluation.silenced.items()}
        without = {key: one["mAP"] for key, one in others.items()}
        return several_standing.standing_table(title, found, without)
    interval = f"95 % interval, {found.top1.groups} sources"
    table = PlainTable(title, "", "top-1", interval)
    table.row("this model", _percent(found.top1.value), _ends(found.top1))
    table.row("  top-5", _percent(found.top5.value), _ends(found.top5))
    if found.class_mean:
        mean = found.class_mean
        table.row("  mean of classes", _percent(mean.value), _ends(mean))
    for modality, reports in evaluation.silenced.items():
        ends = _ends(found.silenced[modality]) if modality in found.silenced else ""
        table.row(f"  without {modality}", _percent(_top1(reports[name])), ends)
    if found.train_top1 is not None:
        ends = _ends(found.train) if found.train else ""
        table.row("  on its training clips", _percent(found.train_top1), ends)
    if found.baseline_top1 and found.ahead:
        base, ahead = found.baseline_top1, found.ahead
        table.row("baseline (avt baseline)", _percent(base.value), _ends(base))
        table.row("  model minus baseline", _percent(ahead.value), _ends(ahead))
    always = f"always {found.majority_class!r}"
    if len(always) > _MAX_NAME:
        always = f"{always[: _MAX_NAME - 1]}…"
    table.row(always, _percent(found.majority), "")
    table.row("chance", _percent(found.chance), "")
    return table


def baseline_table(
    title: str, top1: Mapping[str, Interval], majority: float, chance: float
) -> PlainTable:
    """Accuracies of the baseline by modality.

    Args:
      title: above the table.
      top1: {modalities: accuracy}.
      majority: accuracy of always giving the largest class.
      chance: of guessing.
    """
    groups = max(one.groups for one in top1.values())
    table = PlainTable(title, "", "top-1", f"95 % interval, {groups} sources")
    for name, one in top1.items():
        table.row(name, _percent(one.value), _ends(one))
    table.row("always the largest class", _percent(majority), "")
    table.row("chance", _percent(chance), "")
    return table


def baseline_results(
    found: Mapping[str, Mapping[str, Interval]],
    majority: Mapping[str, float],
    chance: Mapping[str, float],
) -> dict[str, Any]:
    """The same as plain JSON-able values.

    Args:
      found: {label set: {modalities: accuracy, or mAP of a multi-label set}}.
      majority: {label set: accuracy of always giving the largest class}.
      chance: {multi-label set: mAP of scores that say nothing}.

    Returns:
      {label set: {modalities: {...}, "majority" or "chance_mAP": ...}}.
    """
    return {
        name: {key: asdict(one) for key, one in by.items()}
        | ({"chance_mAP": chance[name]} if name in chance else {"majority": majority[name]})
        for name, by in found.items()
    }


def _ends(interval: Interval) -> str:
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"


def class_table(
    name: str, report: ClassificationReport, intervals: Sequence[Interval | None] = ()
) -> PlainTable:
    """Accuracy of each class and what it is most often taken for, the worst classes first.

    Args:
      name: of the label set.
      report: with `classes` and `confusion`. At most 20 classes are shown.
      intervals: of the accuracy of each class; () = not known.
    """
    accuracies = {
        i: entry["accuracy"]
        for i, entry in enumerate(report["classes"])
        if entry["accuracy"] is not None
    }
    rows = sorted(accuracies, key=accuracies.__getitem__)
    shown = rows[:_MAX_CLASSES_IN_TABLE]
    title = f"{name}: classes" + (
        f", the {len(shown)} worst of {len(rows)}" if len(shown) < len(rows) else ""
    )
    columns = ["class", "clips", "accuracy", *["95 % interval"] * bool(intervals)]
    table = PlainTable(title, *columns, "most often taken for", left=(0, len(columns)))
    for i in shown:
        entry = report["classes"][i]
        one = intervals[i] if intervals else None
        table.row(
            entry["name"],
            str(entry["count"]),
            _percent(entry["accuracy"]),
            *([_ends(one)] if one else []),
            _most_confused(report, i),
        )
    return table


def _most_confused(report: ClassificationReport, true: int) -> str:
    wrong_y = report["confusion"][true].copy()
    wrong_y[true] = 0
    if not wrong_y.any():
        return ""
    worst = int(wrong_y.argmax())
    return f"{report['classes'][worst]['name']} ({wrong_y[worst]} x)"


def _top1(report: Mapping[str, Any]) -> float:
    top1: float = report["top1"]
    return top1


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def first_class_difference(
    run_sets: Mapping[str, Sequence[str]], data_sets: Mapping[str, Sequence[str]]
) -> str | None:
    """Where the classes of a run and of a data set part ways.

    Args:
      run_sets: {label set: class names} the model was trained on.
      data_sets: the same of the shards.

    Returns:
      A clause that names the first difference, or None when they are equal.
    """
    for name in [*run_sets, *data_sets]:
        if name not in data_sets:
            return f"the data have no label set {name!r}, the run has"
        if name not in run_sets:
            return f"the run has no label set {name!r}, the data have"
        ours, theirs = run_sets[name], data_sets[name]
        for i, (here, there) in enumerate(zip(ours, theirs, strict=False)):
            if here != there:
                return f"class {i} of {name!r} is {here!r} in the run and {there!r} in the data"
        if len(ours) != len(theirs):
            return f"{name!r} has {len(ours)} classes in the run and {len(theirs)} in the data"
    return None
