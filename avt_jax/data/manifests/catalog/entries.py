"""The data sets: how their annotation files and their videos are laid out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from avt_jax.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """One label set of a data set.

    Attributes:
      column: class name; where there is an `index_column`, a word that the class can be called by.
      index_column: official class index, "" if the set has none and the names are sorted.
      num_classes: of the complete data set; 0 = differs between releases.
    """

    column: str
    index_column: str = ""
    num_classes: int = 0


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What is particular to a data set.

    Attributes:
      name: how the command line calls it.
      title: how people call it.
      columns: of an annotation file without a header, in order; () = it has a header.
      video: column with the id of the source video.
      start: column with the start, in seconds or as HH:MM:SS.ss.
      label_sets: by the name of the label set.
      end: column with the end; "" = `clip_sec` after the start.
      clip_sec: length of a clip where there is no `end`.
      clip: column with the name of the clip, which a file cut to it may have; "" = none.
      split: column with the split; "" = it follows from the file's name.
      splits: our split for every value of `split`.
      file_splits: our split for every official file, by its name without ".csv".
      class_list: file in this package that the classes are restricted to; "" = all classes.
      aliases: other names on the command line.
      recipe: config that trains on it; "" = none.
      example: options of a typical command.
    """

    name: str
    title: str
    video: str
    start: str
    label_sets: Mapping[str, LabelSet]
    columns: tuple[str, ...] = ()
    end: str = ""
    clip_sec: float = 0.0
    clip: str = ""
    split: str = ""
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    file_splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    class_list: str = ""
    aliases: tuple[str, ...] = ()
    recipe: str = ""
    example: str = ""


_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

_VGGSOUND = DataSet(
    name="vggsound",
    title="VGGSound",
    columns=("youtube_id", "start_second", "label", "split"),
    video="youtube_id",
    start="start_second",
    clip_sec=10.0,
    label_sets={"label": LabelSet("label", num_classes=309)},
    split="split",
    splits=_SPLITS,
    recipe="vggsound",
    example="--csv vggsound.csv --videos VIDEOS --val-fraction 0.02",
)

_EPIC_KITCHENS_100 = DataSet(
    name="epic-kitchens-100",
    title="EPIC-Kitchens-100",
    aliases=("epic",),
    video="video_id",
    start="start_timestamp",
    end="stop_timestamp",
    clip="narration_id",
    label_sets={
        "verb": LabelSet("verb", index_column="verb_class", num_classes=97),
        "noun": LabelSet("noun", index_column="noun_class", num_classes=300),
    },
    file_splits={
        "EPIC_100_train": "train",
        "EPIC_100_validation": "val",
        "EPIC_100_test_timestamps": "test",
    },
    recipe="epic_kitchens_100",
    example=(
        "--csv EPIC_100_train.csv --csv EPIC_100_validation.csv "
        "--classes verb=EPIC_100_verb_classes.csv --classes noun=EPIC_100_noun_classes.csv "
        "--videos VIDEOS"
    ),
)

_KINETICS = DataSet(
    name="kinetics",
    title="Kinetics",
    video="youtube_id",
    start="time_start",
    end="time_end",
    label_sets={"label": LabelSet("label")},
    split="split",
    splits=_SPLITS,
    example="--csv train.csv --csv validate.csv --csv test.csv --videos VIDEOS",
)

_KINETICS_SOUNDS = dataclasses.replace(
    _KINETICS,
    name="kinetics-sounds",
    title="Kinetics-Sounds",
    class_list="kinetics_sounds.txt",
    recipe="kinetics_sounds",
)

DATA_SETS = {
    entry.name: entry for entry in (_VGGSOUND, _EPIC_KITCHENS_100, _KINETICS, _KINETICS_SOUNDS)
}


def find_data_set(name: str) -> DataSet | None:
    """The entry with this name or alias, None if there is none."""
    for entry in DATA_SETS.values():
        if name in (entry.name, *entry.aliases):
            return entry
    return None


def get_data_set(name: str) -> DataSet:
    """The entry with this name or alias.

    Raises:
      UserError: there is none.
    """
    entry = find_data_set(name)
    if entry is None:
        names = list(DATA_SETS)
        raise UserError(
            f"unknown data set {name!r}{nearest(name, names)}; known are {', '.join(names)}."
        )
    return entry
