"""What `avt manifest` prints: tables of what was found, and the command that comes next."""

from __future__ import annotations

import collections
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avt_jax.data.doctor.classes import check_names
from avt_jax.data.doctor.findings import free_name
from avt_jax.host.output.tables import PlainTable, new_console

if TYPE_CHECKING:
    from avt_jax.data.manifests.catalog.build import Written
    from avt_jax.data.manifests.catalog.entries import DataSet
    from avt_jax.data.manifests.catalog.report import Counts
    from avt_jax.data.manifests.group_splits import Divided
    from avt_jax.data.manifests.name_groups import Grouping

_MAX_CLASSES = 10
_KINDS = ("annotated", "found", "missing", "duplicate", "skipped")


def print_divided(divided: Divided, out: str, command: Sequence[str]) -> None:
    """Prints the clips per class and split of a manifest whose splits were made here.

    Args:
      divided: what was written.
      out: the manifest.
      command: that wrote it, without its options `--out` and `--group-by`.
    """
    counts = divided.counts
    splits = tuple(next(iter(counts.values())))
    sums = (str(sum(row[split] for row in counts.values())) for split in splits)
    table = PlainTable(f"wrote {out}", "class", *splits, footer=("all", *sums))
    for name, row in counts.items():
        table.row(name, *(str(row[split]) for split in splits))
    console = new_console()
    console.print(table)
    lines = [f"passed over: {sentence}" for sentence in divided.passed.sentences()]
    lines += [f"warning: {sentence}" for sentence in divided.notes]
    lines += _class_lines(divided)
    if divided.num_groups is not None:
        listed = ", ".join(f"{split} {number}" for split, number in divided.num_groups.items())
        lines.append(f"groups of files: {listed}")
    if divided.grouping is not None:
        lines += _grouping_lines(divided.grouping, out, command)
    for line in lines:
        console.print(line, soft_wrap=True)


def _class_lines(divided: Divided) -> Iterator[str]:
    small = [name for name, row in divided.counts.items() if not all(row.values())]
    if small:
        what = "videos" if divided.num_groups is None else "groups"
        yield (
            f"{len(small)} class(es) are missing from a split; 3 {what} per class are the least "
            "that can fill all of them."
        )
    names = list(divided.counts)
    sizes = collections.Counter(
        {i: sum(divided.counts[name].values()) for i, name in enumerate(names)}
    )
    for finding in check_names({"label": names}, {"label": sizes}):
        yield finding.line()


def _grouping_lines(grouping: Grouping, out: str, command: Sequence[str]) -> Iterator[str]:
    root, end = os.path.splitext(out)
    number = len(grouping.groups)
    again = [*command, "--group-by", grouping.pattern, "--out", free_name(f"{root}.grouped{end}")]
    yield (
        f"warning: {grouping.num_files} files look like {number} recording(s) in several parts, "
        f"such as {' and '.join(grouping.example)}; if they are, keep each in one split:"
    )
    yield f"  {shlex.join(again)}"


def print_data_set(entry: DataSet, written: Written) -> None:
    """Prints what was found per split and class, warnings, and what to run next.

    Args:
      entry: the data set.
      written: what was written.
    """
    console = new_console()
    console.print(_split_table(entry, written))
    for label_set in entry.label_sets:
        console.print(_class_table(label_set, written))
    lines = [f"{number} rows left out: {reason}" for reason, number in _reasons(written)]
    if written.num_unmatched:
        lines.append(f"{written.num_unmatched} video files belong to no row")
    lines += [f"warning: {sentence}" for sentence in written.warnings]
    lines += [
        f"all classes: {written.report}",
        f"every missing, duplicate or unmatched item: {written.problems}",
        "",
        "next:",
        *(f"  {command}" for command in next_commands(entry, written)),
    ]
    for line in lines:
        console.print(line, soft_wrap=True)


def _reasons(written: Written) -> list[tuple[str, int]]:
    return sorted(written.tally.reasons.items())


def _row(name: str, counts: Counts) -> list[str]:
    return [name, *(str(getattr(counts, kind)) for kind in _KINDS)]


def _split_table(entry: DataSet, written: Written) -> PlainTable:
    table = PlainTable(f"{entry.title}: wrote {written.manifest}", "split", *_KINDS)
    for split, counts in written.tally.splits.items():
        if counts.annotated:
            table.row(*_row(split, counts))
    return table


def _class_table(label_set: str, written: Written) -> PlainTable:
    """The classes with the least share of clips found; the report has all."""
    classes = {
        name: _sum(list(splits.values()))
        for name, splits in written.tally.classes[label_set].items()
    }
    annotated = {name: counts for name, counts in classes.items() if counts.annotated}
    # The sort keeps the order of the class indices among equals.
    ranked = sorted(annotated, key=lambda name: annotated[name].found / annotated[name].annotated)
    absent = sum(not counts.found for counts in classes.values())
    title = f"{label_set}: {len(classes)} classes, {absent} of them without a clip; least complete:"
    table = PlainTable(title, "class", *_KINDS)
    for name in ranked[:_MAX_CLASSES]:
        table.row(*_row(name, annotated[name]))
    rest = ranked[_MAX_CLASSES:]
    if rest:
        table.row(*_row(f"{len(rest)} more", _sum([annotated[name] for name in rest])))
    return table


def _sum(parts: list[Counts]) -> Counts:
    total = type(parts[0])()
    for counts in parts:
        total.found += counts.found
        total.missing += counts.missing
        total.duplicate += counts.duplicate
        total.skipped += counts.skipped
    return total


def next_commands(entry: DataSet, written: Written) -> list[str]:
    """The commands that extract the manifest and train on it.

    Args:
      entry: the data set.
      written: what was written.
    """
    shards = written.manifest.with_name("shards")
    extract = ["avt", "extract", "--manifest", str(written.manifest), "--out", str(shards)]
    for name, path in written.class_lists.items():
        extract += ["--classes", f"{name}={path}"]
    commands = [extract]
    if entry.recipe:
        train = ["avt", "train", "--config", entry.recipe, "--workdir"]
        train += [str(Path("runs") / entry.recipe), f"--config.data.path={shards}"]
        splits = written.tally.splits
        if not splits["val"].found and splits["test"].found:
            # The recipes look at the validation split while they train.
            train.append("--config.data.eval_split=test")
        commands.append(train)
    return [shlex.join(command) for command in commands]
