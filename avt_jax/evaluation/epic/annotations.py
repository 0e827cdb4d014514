"""What the authors' annotation files say of the segments that are judged.

Source: the repository epic-kitchens/epic-kitchens-100-annotations, and the evaluation script of
epic-kitchens/C1-Action-Recognition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from avt_jax.data.manifests.fields import parse_seconds
from avt_jax.data.manifests.table import Rows, open_text
from avt_jax.errors import UserError

SEGMENT_FILES = {
    "train": "EPIC_100_train.csv",
    "val": "EPIC_100_validation.csv",
    "test": "EPIC_100_test_timestamps.csv",
}
UNSEEN_FILES = {
    "val": "EPIC_100_unseen_participant_ids_validation.csv",
    "test": "EPIC_100_unseen_participant_ids_test.csv",
}
TAIL_FILES = {"verb": "EPIC_100_tail_verbs.csv", "noun": "EPIC_100_tail_nouns.csv"}
_SEGMENT_COLUMNS = (
    "narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp"
)  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """One row of a segment file.

    Attributes:
      narration_id: its name, "P01_101_7".
      participant: who filmed, "P01".
      end_sec: in its video.
      labels: (verb, noun) class indices; None in the test file, which has none.
    """

    narration_id: str
    participant: str
    end_sec: float
    labels: tuple[int, int] | None


@dataclass(frozen=True)
class Annotations:
    """What is known of a split.

    Attributes:
      file: of the segments.
      segments: {(video, start in ms): segments that begin there}.
      unseen: participants without training videos; None where there is no list for the split.
      tail: {"verb", "noun": indices of the tail classes}.
    """

    file: Path
    segments: Mapping[tuple[str, int], Sequence[Segment]]
    unseen: frozenset[str] | None
    tail: Mapping[str, frozenset[int]]

    @property
    def count(self) -> int:
        """Segments of the split."""
        return sum(map(len, self.segments.values()))


def read_annotations(folder: Path, split: str) -> Annotations:
    """Reads what a split needs.

    Args:
      folder: of the authors' files, under their own names.
      split: "train", "val" or "test".

    Raises:
      UserError: a file is missing, lacks a column, or says what it cannot.
    """
    segments: dict[tuple[str, int], list[Segment]] = {}
    path, seen = folder / SEGMENT_FILES[split], set()
    for line, row in _rows(path, _SEGMENT_COLUMNS):
        where = f"{path}, line {line}"
        start_sec, end_sec = (
            _seconds(row[name], name, where) for name in ("start_timestamp", "stop_timestamp")
        )
        labels = None
        if "verb_class" in row and "noun_class" in row:
            labels = (
                _index(row["verb_class"], "verb_class", where),
                _index(row["noun_class"], "noun_class", where),
            )
        name = row["narration_id"]
        if name in seen:
            raise UserError(f"{where}: narration_id {name!r} stands there twice; name each once.")
        seen.add(name)
        one = Segment(name, row["participant_id"], end_sec, labels)
        segments.setdefault((row["video_id"], round(1000 * start_sec)), []).append(one)
    unseen = None
    if split in UNSEEN_FILES:
        rows = _rows(folder / UNSEEN_FILES[split], ["participant_id"])
        unseen = frozenset(row["participant_id"] for _, row in rows)
    tail = {
        name: frozenset(
            _index(row[name], name, f"{folder / file}, line {line}")
            for line, row in _rows(folder / file, [name])
        )
        for name, file in TAIL_FILES.items()
    }
    return Annotations(path, segments, unseen, tail)


def find_segments(
    annotations: Annotations,
    names: Sequence[Mapping[str, Any]],
    labels: Sequence[tuple[int, int]],
) -> list[Segment]:
    """The segment of each clip.

    A clip is found by its video and start; a file that was cut already, by its own name. Of several
    segments that begin together the one with the clip's end is taken, then the one with its
    classes, then the first that no other clip has.

    Args:
      annotations: of the split.
      names: {"id", "source", "start_sec", "end_sec"} of each clip.
      labels: its (verb, noun).

    Raises:
      UserError: a clip is no segment of the file.
    """
    by_name = {
        one.narration_id: one for several in annotations.segments.values() for one in several
    }
    taken: set[str] = set()
    found = []
    for row, label in zip(names, labels, strict=True):
        stem = PurePosixPath(str(row["source"])).stem
        if stem in by_name:
            candidates: Sequence[Segment] = [by_name[stem]]
        else:
            start_ms = round(1000 * float(row["start_sec"]))
            candidates = annotations.segments.get((stem, start_ms), ())
        free = [one for one in candidates if one.narration_id not in taken]
        if not free:
            known = "another clip has it already" if candidates else "no row is this segment"
            raise UserError(
                f"the clip {row['id']} is not in {annotations.file}: {known}; give the annotation "
                "files that the shards were made from, and the same --split."
            )
        end_sec = float(row["end_sec"])
        best = min(
            free, key=lambda one: (round(abs(one.end_sec - end_sec), 1), one.labels != label)
        )
        taken.add(best.narration_id)
        found.append(best)
    return found


def check_labels(
    annotations: Annotations, segments: Sequence[Segment], labels: Sequence[tuple[int, int]]
) -> None:
    """Checks that class indices are the official ones.

    Raises:
      UserError: a clip has another class than its segment.
    """
    for one, label in zip(segments, labels, strict=True):
        if one.labels is not None and one.labels != label:
            raise UserError(
                f"{one.narration_id} has verb {one.labels[0]} and noun {one.labels[1]} in "
                f"{annotations.file}, and {label[0]} and {label[1]} in the shards; make these with "
                "the official class lists (docs/datasets.md)."
            )


def _rows(path: Path, wanted: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    with open_text(path, "the annotation file") as file:
        rows = Rows(file, path, "the annotation file", wanted)
        missing = [name for name in wanted if name not in rows.header]
        if missing:
            raise UserError(
                f"the annotation file {path} has no column {missing[0]!r}; take the authors' file."
            )
        return [(line, dict(zip(rows.header, row, strict=True))) for line, row in rows]


def _seconds(text: str, column: str, where: str) -> float:
    try:
        return parse_seconds(text, column)
    except ValueError as error:
        raise UserError(f"{where}: {error}.") from error


def _index(text: str, column: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise UserError(f"{where}: {column} {text!r} is no class index.")
    return int(text)
