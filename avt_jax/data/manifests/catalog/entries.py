"""The registry of data sets: how their annotation files and their videos are laid out.

A further data set is one more entry below, in `DATA_SETS`; the tests build each of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NoReturn

from avt_jax.data.records import SPLITS
from avt_jax.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """One label set of a data set.

    Attributes:
      column: class name; where there is an `index_column`, a word that the class can be called by.
      index_column: official class index, "" if the set has none and the names are sorted.
      num_classes: of the complete data set; 0 = differs between releases.
      is_several: a clip may have any number of classes: the set is multi-label.
      between: stands between the classes of a field; "" = a row has one, and a clip several rows.
      codes: the column holds codes (AudioSet's "/m/09x0r"), for which the class list has names.
    """

    column: str
    index_column: str = ""
    num_classes: int = 0
    is_several: bool = False
    between: str = ""
    codes: bool = False


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What is particular to a data set.

    Attributes:
      name: how the command line calls it.
      title: how people call it.
      columns: of an annotation file without a header, in order; () = it has a header.
      delimiter: the character between two fields.
      quote: the character around a field that holds a delimiter; "" = there is none, and quotation
        marks are part of the fields.
      video: column with the id of the source video.
      start: column with the start, in seconds or as HH:MM:SS.ss.
      label_sets: by the name of the label set.
      end: column with the end; "" = `clip_sec` after the start.
      clip_sec: length of a clip where there is no `end`.
      clip: column with the name of the clip, which a file cut to it may have; "" = none.
      name_has_start: `video` is the id and, behind an underscore, the start in six digits.
      only: for a column, the values of rows that are taken; rows with others are left out.
      comment: begins lines that are passed over; "" = there are none.
      spaced: a space stands behind each delimiter, also before a quote.
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
    label_sets: Mapping[str, LabelSet]
    start: str = ""
    columns: tuple[str, ...] = ()
    delimiter: str = ","
    quote: str = '"'
    end: str = ""
    clip_sec: float = 0.0
    clip: str = ""
    name_has_start: bool = False
    only: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    comment: str = ""
    spaced: bool = False
    split: str = ""
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    file_splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    class_list: str = ""
    aliases: tuple[str, ...] = ()
    recipe: str = ""
    example: str = ""

    def __post_init__(self) -> None:
        """Refuses an entry that no file could be read with.

        Raises:
          ValueError: what it says contradicts itself.
        """
        if len(self.delimiter) != 1 or len(self.quote) > 1:
            self._refuse("needs one character as delimiter, and at most one as quote")
        wanted = {self.video, self.start, self.end, self.clip, self.split, *self.only}
        for label_set in self.label_sets.values():
            wanted |= {label_set.column, label_set.index_column}
            if label_set.between and not label_set.is_several:
                self._refuse(f"divides {label_set.column!r}, whose rows have one class")
            if label_set.index_column and not label_set.num_classes:
                self._refuse(f"has no number of classes for {label_set.index_column!r}")
        if not self.label_sets or not (self.video and bool(self.start) != self.name_has_start):
            self._refuse("needs a label set, and columns for the video and the start")
        if self.columns and not wanted <= {*self.columns, ""}:
            self._refuse(f"names columns that are not in {', '.join(self.columns)}")
        if bool(self.end) == (self.clip_sec > 0):
            self._refuse("needs either a column with the end or the length of a clip")
        named = self.splits if self.split else self.file_splits
        if not named or not set(named.values()) <= set(SPLITS):
            self._refuse(f"has no splits, or others than {', '.join(SPLITS)}")

    def _refuse(self, why: str) -> NoReturn:
        raise ValueError(f"the entry of {self.name!r} {why}")


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

_AUDIOSET = DataSet(
    name="audioset",
    title="AudioSet",
    columns=("YTID", "start_seconds", "end_seconds", "positive_labels"),
    comment="#",
    spaced=True,
    video="YTID",
    start="start_seconds",
    end="end_seconds",
    label_sets={
        "label": LabelSet(
            "positive_labels", num_classes=527, is_several=True, between=",", codes=True
        )
    },
    file_splits={
        "balanced_train_segments": "train",
        "unbalanced_train_segments": "train",
        "eval_segments": "test",
    },
    recipe="audioset",
    example=(
        "--csv balanced_train_segments.csv --csv eval_segments.csv "
        "--classes label=class_labels_indices.csv --videos VIDEOS --val-fraction 0.05"
    ),
)


def _vggsounder(name: str, title: str, modalities: tuple[str, ...]) -> DataSet:
    """VGGSounder with the labels of some modality tags."""
    return DataSet(
        name=name,
        title=title,
        video="video_id",
        name_has_start=True,
        clip_sec=10.0,
        label_sets={"label": LabelSet("label", num_classes=309, is_several=True)},
        only={"modality": modalities},
        file_splits={"vggsounder": "test", "vggsounder+background-music": "test"},
        example="--csv vggsounder.csv --videos VIDEOS",
    )


_VGGSOUNDER = (
    _vggsounder("vggsounder", "VGGSounder", ("A", "V", "AV")),
    _vggsounder("vggsounder-a", "VGGSounder, what is heard", ("A", "AV")),
    _vggsounder("vggsounder-v", "VGGSounder, what is seen", ("V", "AV")),
    _vggsounder("vggsounder-av", "VGGSounder, what is heard and seen", ("AV",)),
)

DATA_SETS: Mapping[str, DataSet] = {
    entry.name: entry
    for entry in (
        _VGGSOUND,
        *_VGGSOUNDER,
        _AUDIOSET,
        _EPIC_KITCHENS_100,
        _KINETICS,
        _KINETICS_SOUNDS,
    )
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
        known = [word for entry in DATA_SETS.values() for word in (entry.name, *entry.aliases)]
        raise UserError(
            f"unknown data set {name!r}{nearest(name, known)}; known are {', '.join(DATA_SETS)}."
        )
    return entry
