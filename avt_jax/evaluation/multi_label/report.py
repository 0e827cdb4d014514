"""What was measured of multi-label sets as values, tables and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avt_jax.evaluation.multi_label.scores import ClassScores, MultiLabelReport
from avt_jax.host.new_files import replacing
from avt_jax.host.output.cells import CellWriter
from avt_jax.host.output.tables import PlainTable

_MAX_CLASSES_IN_TABLE = 20


def is_multi_label(report: Mapping[str, Any]) -> bool:
    """Whether a report is one of a multi-label set."""
    return "mAP" in report


def main_values(report: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared with a modality silenced: {"mAP", "auc", "hit1"}."""
    return {"mAP": report["mAP"], "auc": report["auc"], "hit1": report["hits"]["1"]}


def set_table(
    title: str,
    reports: Mapping[str, MultiLabelReport],
    silenced: Mapping[str, Mapping[str, Any]],
) -> PlainTable:
    """mAP, AUC, d', hit rates and F1 of every multi-label set.

    Args:
      title: above the table.
      reports: of each set.
      silenced: {modality: {label set: report}}.
    """
    ks = [k for k in ("1", "5") if all(k in report["hits"] for report in reports.values())]
    columns = ["clips", "mAP", "AUC", "d'", *(f"hit@{k}" for k in ks), *(f"F1@{k}" for k in ks)]
    columns += [f"mAP, no {modality}" for modality in silenced]
    table = PlainTable(title, "label set", *columns)
    for name, report in reports.items():
        table.row(
            name,
            str(report["count"]),
            number(report["mAP"]),
            number(report["auc"]),
            number(report["d_prime"]),
            *(number(report["hits"][k]) for k in ks),
            *(number(report["f1"][k]) for k in ks),
            *(number(found[name]["mAP"]) for found in silenced.values()),
        )
    return table


def notes(name: str, report: MultiLabelReport) -> list[str]:
    """What a reader of the table should know."""
    lines = []
    if report["num_absent"]:
        lines.append(
            f"{name}: {report['num_absent']} of {len(report['classes'])} classes have no clip here "
            "and count in no mean."
        )
    if report["d_prime"] is None and report["auc"] is not None:
        lines.append(f"{name}: d' is not finite at an AUC of {number(report['auc'])}.")
    return lines


def class_table(name: str, report: MultiLabelReport) -> PlainTable:
    """Average precision, AUC and d' of each class, the worst first; at most 20 are shown.

    Args:
      name: of the label set.
      report: of it.
    """
    present = by_precision(report["classes"])
    shown = present[:_MAX_CLASSES_IN_TABLE]
    title = f"{name}: classes" + (
        f", the {len(shown)} worst of {len(present)}" if len(shown) < len(present) else ""
    )
    table = PlainTable(title, "class", "clips", "AP", "AUC", "d'")
    for one in shown:
        scores = (number(one["ap"]), number(one["auc"]), number(one["d_prime"]))
        table.row(one["name"], str(one["count"]), *scores)
    return table


def by_precision(classes: Sequence[ClassScores]) -> list[ClassScores]:
    """The classes that have an average precision, lowest first."""
    known = [one for one in classes if one["ap"] is not None]
    return sorted(known, key=lambda one: one["ap"] or 0.0)


def write_class_table(path: Path, report: MultiLabelReport) -> None:
    """Writes all classes as CSV, with full precision; a cell is empty where there is no value.

    Args:
      path: the file; an older one is replaced.
      report: of the set.

    Raises:
      UserError: it cannot be written.
    """
    with replacing(path) as file:
        writer = CellWriter(file)
        writer.row(["class", "clips", "ap", "auc", "d_prime"])
        for one in report["classes"]:
            writer.row([one["name"], one["count"], one["ap"], one["auc"], one["d_prime"]])


def number(value: float | None) -> str:
    """Three places; "" for None."""
    return "" if value is None else f"{value:.3f}"
