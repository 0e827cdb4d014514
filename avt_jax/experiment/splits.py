"""Where a training's clips come from: shards, generated noise, or objects of the user's program."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from avt_jax import axes
from avt_jax.data import records
from avt_jax.data.loading.batches import Source
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.loading.damaged import WrongRecord
from avt_jax.data.records.from_arrays import check_labels
from avt_jax.data.records.generated import is_generated, open_generated
from avt_jax.data.records.labels import check_sets
from avt_jax.errors import UserError
from avt_jax.evaluation.report import first_class_difference

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Batches = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class OwnData:
    """Clips from Python, in place of shards.

    A split is a random-access source (`len(split)`, `split[i]` -> record, such as
    `record_from_arrays` makes), or an iterable of batches as in `avt_jax.axes`, of which "video",
    "audio" and "labels" must be there. Batches go to the model as they are: `config.data` then
    only says their sizes and normalisation.

    Attributes:
      label_sets: {label set: class names}, in the order of the class indices.
      train: what is trained on. An iterator that ends ends the training with an error; a list or
        another iterable that can be gone through again is repeated.
      val: what is evaluated on while training; None = nothing. Batches must be an iterable that
        can be gone through again. With several processes, batches are each process's own part, and
        every process gives as many.
      frame_rate_hz: with which `Predictor` reads a raw file.
      short_side_px: the same; shorter side of the frames it keeps.
      jpeg_quality: the same, 1 to 100.
      multi_label: the label sets of which a clip may have any number of classes; their labels are
        arrays of 0 and 1, a number for each class.
    """

    label_sets: Mapping[str, Sequence[str]]
    train: Source | Batches
    val: Source | Batches | None = None
    frame_rate_hz: float = 8.0
    short_side_px: int = 256
    jpeg_quality: int = 90
    multi_label: Collection[str] = ()


class OwnRecords:
    """Records of the user's program, each checked when it is read: by index, and picklable.

    Args:
      source: see `OwnData`.
      classes: {label set: number of classes}.
      name: of the field of `OwnData`, for messages.
      multi_label: as in `OwnData`.
    """

    def __init__(
        self,
        source: Source,
        classes: Mapping[str, int],
        name: str,
        multi_label: Collection[str] = (),
    ):
        self._source, self._classes, self._name = source, dict(classes), name
        self._multi_label = tuple(multi_label)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Record `index`.

        Raises:
          WrongRecord: it is not what `record_from_arrays` makes, or its labels are none of the
            classes.
        """
        return self._checked(index, self._source[index])

    def read_lazily(self, index: int) -> Mapping[str, Any]:
        """The same, which copies a frame when it is asked for where the source can do that."""
        return self._checked(index, records.lazy_reader(self._source)(index))

    def _checked(self, index: int, record: Any) -> Mapping[str, Any]:
        what = f"OwnData.{self._name}[{index}]"
        if not isinstance(record, Mapping):
            raise WrongRecord(f"{what} is a {type(record).__name__}; give a record, {_MAKE}.")
        if missing := [name for name in _FIELDS if name not in record]:
            raise WrongRecord(f"{what} has no {missing[0]!r}; give a record, {_MAKE}.")
        try:
            check_labels(
                record["labels"], f"the labels of {what}", self._classes, self._multi_label
            )
        except UserError as error:
            raise WrongRecord(str(error)) from error
        return record


# What an example is made of.
_FIELDS = (
    "id", "source", "frames", "frame_rate_hz", "fbank", "has_audio", "start_sec", "end_sec",
    "labels",
)  # fmt: skip
_MAKE = "such as avt_jax.record_from_arrays makes"


@dataclass(frozen=True)
class Splits:
    """Opened data.

    Attributes:
      train: records by index, or an iterable of batches.
      val: the same; None = no validation.
      info: what is known of the records.
    """

    train: Source | Batches
    val: Source | Batches | None
    info: records.RecordsInfo

    @property
    def classes(self) -> dict[str, int]:
        """{label set: number of classes}."""
        return {name: len(names) for name, names in self.info.label_sets.items()}


def is_source(split: Any) -> TypeIs[Source]:
    """True for records by index, False for an iterable of batches."""
    if isinstance(split, OwnRecords):
        return True
    if not (hasattr(split, "__getitem__") and hasattr(split, "__len__")):
        return False
    # What is neither is refused as a batch.
    batch = {axes.VIDEO, axes.AUDIO}
    return not len(split) or (isinstance(split[0], Mapping) and not batch & split[0].keys())


def length(split: Source | Batches | None) -> int | None:
    """Number of clips of a split; None where only going through it would tell."""
    if split is None:
        return 0
    return len(split) if is_source(split) else None


def read_info(path: str, origin: str = "", data: DataConfig | None = None) -> records.RecordsInfo:
    """What is known of the shards, or generated records, at `config.data.path`.

    Args:
      path: as the config has it.
      origin: for the message, what names the path.
      data: how they are read; None = as clips.

    Raises:
      UserError: there are none.
    """
    try:
        if data is not None and data.is_tokens:
            return _tokens_info(path, data)
        return open_generated(path, "train")[0] if is_generated(path) else records.read_info(path)
    except UserError as error:
        if origin and not is_generated(path):
            raise UserError(f"{origin}: {error}") from error
        raise


def _tokens_info(path: str, data: DataConfig) -> records.RecordsInfo:
    info, tokens = records.read_tokens_info(path)
    for name, wanted in (("video", data.video_tokens), ("audio", data.audio_tokens)):
        stored = tokens.shapes.get(name, (0, 0))
        if any(wanted) and stored != wanted:
            raise UserError(
                f"{path} holds {name} tokens of the shape {stored}, and config.data.{name}_tokens "
                f"is {wanted}; give the folder that the run was trained on, or make them equal."
            )
    return info


def open_source(path: str, split: str, *, tokens: bool = False) -> Source:
    """Opens one split for random access.

    Args:
      path: as the config has it.
      split: of it.
      tokens: they are cached tokens.

    Raises:
      UserError: no such shards or split, or the split is empty.
    """
    if tokens:
        source: Source = records.open_tokens(path, split)
    elif is_generated(path):
        source = open_generated(path, split)[1]
    else:
        source = records.open_split(path, split)
    if not len(source):
        raise UserError(f"the split {split!r} of {path} is empty; extract more clips.")
    return source


def open_splits(data: DataConfig, own: OwnData | None = None) -> Splits:
    """Opens the training and the validation split.

    Args:
      data: the config's block.
      own: used in place of `data.path`.

    Raises:
      UserError: no such shards or split, or the training split is empty.
    """
    if own is None:
        info = read_info(data.path, "--config.data.path", data)
        train, val = (
            open_source(data.path, name, tokens=data.is_tokens)
            for name in (data.train_split, data.eval_split)
        )
        return Splits(train, val, info)
    return _open_own(own)


def _open_own(own: OwnData) -> Splits:
    _check_sets(own.label_sets)
    train = own_split(own, "train")
    val = None if own.val is None else own_split(own, "val")
    if is_source(train) and not length(train):
        raise UserError("OwnData.train is empty; give at least one record.")
    info = records.RecordsInfo(
        label_sets={name: tuple(names) for name, names in own.label_sets.items()},
        splits={"train": length(train) or 0, "val": length(val) or 0},
        frame_rate_hz=own.frame_rate_hz,
        short_side_px=own.short_side_px,
        jpeg_quality=own.jpeg_quality,
        schema_version=records.written_version(own.multi_label),
        multi_label=_multi_label(own),
    )
    return Splits(train, val, info)


def own_split(own: OwnData, name: str) -> Source | Batches:
    """The field `name` of own data; each of its records is checked when it is read."""
    split: Source | Batches = getattr(own, name)
    classes = {label_set: len(names) for label_set, names in own.label_sets.items()}
    if not is_source(split):
        return split
    return OwnRecords(split, classes, name, _multi_label(own))


def _multi_label(own: OwnData) -> tuple[str, ...]:
    try:
        names = [own.multi_label] if isinstance(own.multi_label, str) else own.multi_label
        return check_sets(names, own.label_sets)
    except ValueError as error:
        raise UserError(f"OwnData.{error}; give names of OwnData.label_sets.") from error


def _check_sets(label_sets: Any) -> None:
    """Raises a UserError for what are no label sets."""
    if not isinstance(label_sets, Mapping) or not label_sets:
        raise UserError(
            f"OwnData.label_sets is {label_sets!r}; give a dict, such as {{'label': ['a', 'b']}}."
        )
    for name, names in label_sets.items():
        known = [] if isinstance(names, str) else list(names)
        if not known or not all(isinstance(one, str) for one in known):
            raise UserError(
                f"OwnData.label_sets[{name!r}] is {names!r}; give the names of the classes, a list "
                "of str."
            )
        if len(set(known)) < len(known):
            twice = next(one for one in known if known.count(one) > 1)
            raise UserError(f"OwnData.label_sets[{name!r}] names {twice!r} twice; give it once.")


def check_classes(
    trained: Mapping[str, Sequence[str]], found: Mapping[str, Sequence[str]], where: str
) -> None:
    """Makes sure that data have the classes that a run was trained on.

    Raises:
      UserError: they differ; names the first difference.
    """
    if difference := first_class_difference(trained, found):
        raise UserError(
            f"{where} has other classes than the run was trained on: {difference}; give "
            "shards that were extracted with the same classes."
        )
