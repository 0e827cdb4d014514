"""What one stored clip looks like, and how a folder of shards is written and read.

A shard folder is a TFDS data set (`dataset_info.json`, `features.json`, `metadata.json`, ArrayRecord
shards per split), so `tfds.builder_from_directory(folder)` opens it too. TensorFlow is not needed.

Frame i of a record shows its source at `start_sec + i / frame_rate_hz`; row j of `fbank` covers
[j * 10 ms, j * 10 ms + 25 ms) after `start_sec`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from avt_jax.errors import UserError, nearest

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

SCHEMA_VERSION = "1.0.0"
MEL_BINS = 128
SPLITS = ("train", "val", "test")
CHECKSUM_FILE = "SHA256SUMS"

_DATASET_NAME = "avt_clips"
_MAX_JSON_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class RecordsInfo:
    """What a shard folder says about itself.

    Attributes:
      label_sets: class names of every label set, in the order of their indices.
      splits: number of clips per split.
      frame_rate_hz: frames stored per second of video.
      short_side_px: length of the shorter side of a stored frame.
      schema_version: version of the record layout, `SCHEMA_VERSION` when it was written.
    """

    label_sets: dict[str, tuple[str, ...]]
    splits: dict[str, int]
    frame_rate_hz: float
    short_side_px: int
    schema_version: str


def record_features(label_sets: Mapping[str, tuple[str, ...]]) -> tfds.features.FeaturesDict:
    """The TFDS features of one clip.

    Args:
      label_sets: class names per label set.

    Returns:
      A features dict. Times are stored as raw bytes because TFDS would round them to float32,
      which an hour into a film is a quarter of a millisecond off.
    """
    from tensorflow_datasets import features

    seconds = features.Tensor(shape=(), dtype=np.float64, encoding="bytes")
    return features.FeaturesDict(
        {
            "id": features.Text(),
            "source": features.Text(),
            "frames": features.Sequence(features.Tensor(shape=(), dtype=np.object_)),
            "frame_rate_hz": features.Tensor(shape=(), dtype=np.float32),
            "fbank": features.Tensor(shape=(None, MEL_BINS), dtype=np.float16, encoding="bytes"),
            "has_audio": features.Tensor(shape=(), dtype=np.bool_),
            "start_sec": seconds,
            "end_sec": seconds,
            "labels": features.FeaturesDict(
                {name: features.ClassLabel(names=list(c)) for name, c in label_sets.items()}
            ),
        }
    )


class _OpenSplit:
    """The shards of one split while they are being written."""

    def __init__(self, folder: Path, split: str, max_shard_bytes: int):
        self._folder = folder
        self._split = split
        self._max_shard_bytes = max_shard_bytes
        self._writer = None
        self._shard_bytes = 0
        self.num_bytes = 0
        self.shard_lengths: list[int] = []

    def _path(self, index: int) -> Path:
        return self._folder / f"{self._split}.part-{index:05d}"

    def add(self, serialized: bytes) -> None:
        if self._writer is None or self._shard_bytes + len(serialized) > self._max_shard_bytes:
            self.close()
            from array_record.python.array_record_module import ArrayRecordWriter

            path = self._path(len(self.shard_lengths))
            # One record per group: random access then reads one record, not a block of them.
            self._writer = ArrayRecordWriter(os.fspath(path), "group_size:1")
            self._shard_bytes = 0
            self.shard_lengths.append(0)
        self._writer.write(serialized)
        self._shard_bytes += len(serialized)
        self.num_bytes += len(serialized)
        self.shard_lengths[-1] += 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def finish(self) -> tfds.core.SplitInfo:
        """Gives the shards their TFDS names, which contain how many there are."""
        import tensorflow_datasets as tfds

        self.close()
        template = tfds.core.ShardedFileTemplate(
            dataset_name=_DATASET_NAME,
            data_dir=self._folder,
            split=self._split,
            filetype_suffix="array_record",
        )
        info = tfds.core.SplitInfo(
            name=self._split,
            shard_lengths=self.shard_lengths,
            num_bytes=self.num_bytes,
            filename_template=template,
        )
        for index, path in enumerate(info.filepaths):
            os.replace(self._path(index), path)
        return info


class RecordWriter:
    """Writes records into a new TFDS data set; `close` makes it readable.

    The folder is not complete before `close`: write to a temporary name and rename afterwards.
    Records keep the order in which they are added.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        label_sets: Mapping[str, tuple[str, ...]],
        frame_rate_hz: float,
        short_side_px: int,
        max_shard_bytes: int = 256 * 2**20,
    ):
        """Prepares the folder's description; writes nothing yet.

        Args:
          folder: an existing, empty folder.
          label_sets: class names per label set.
          frame_rate_hz: frames per second of every record.
          short_side_px: shorter side of every frame.
          max_shard_bytes: > 0; a shard is closed before it would grow beyond this.
        """
        self._folder = Path(folder)
        self._label_sets = {name: list(classes) for name, classes in label_sets.items()}
        self._features = record_features(label_sets)
        self._frame_rate_hz = frame_rate_hz
        self._short_side_px = short_side_px
        self._max_shard_bytes = max_shard_bytes
        self._splits: dict[str, _OpenSplit] = {}

    @property
    def num_bytes(self) -> int:
        """Size of all records so far, in bytes."""
        return sum(split.num_bytes for split in self._splits.values())

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        """Appends one record.

        Args:
          split: name of the split.
          record: what `make_record` returns plus "labels": {set: class index}.
        """
        if split not in self._splits:
            self._splits[split] = _OpenSplit(self._folder, split, self._max_shard_bytes)
        self._splits[split].add(self._features.serialize_example(dict(record)))

    def close(self) -> None:
        """Closes the shards and writes the data set's description and checksums."""
        import tensorflow_datasets as tfds

        names = sorted(self._splits, key=lambda name: (*SPLITS, name).index(name))
        splits = [self._splits[name].finish() for name in names]
        info = tfds.core.DatasetInfo(
            builder=tfds.core.dataset_info.DatasetIdentity(
                name=_DATASET_NAME,
                version=tfds.core.Version(SCHEMA_VERSION),
                data_dir=os.fspath(self._folder),
                module_name=__name__,
            ),
            description="Clips as JPEG frames and log-mel filter banks, written by avt_jax.",
            features=self._features,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                schema_version=SCHEMA_VERSION,
                frame_rate_hz=float(self._frame_rate_hz),
                short_side_px=int(self._short_side_px),
                label_sets=self._label_sets,
            ),
        )
        info.set_file_format("array_record")
        info.set_splits(tfds.core.splits.SplitDict(splits))
        info.write_to_directory(self._folder)
        paths = sorted(Path(path) for split in splits for path in split.filepaths)
        lines = [f"{_sha256(path)}  {path.name}\n" for path in paths]
        (self._folder / CHECKSUM_FILE).write_text("".join(lines), encoding="utf-8")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_checksums(path: str | os.PathLike) -> int:
    """Compares every shard with the checksum written when it was made.

    Args:
      path: shard folder.

    Returns:
      The number of shards compared.

    Raises:
      UserError: the checksums are missing or unreadable, or a shard is missing or differs.
    """
    folder = Path(path)
    lines = _read_text(folder / CHECKSUM_FILE, folder).splitlines()
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+)", line)
        if not match:
            raise UserError(f"{folder / CHECKSUM_FILE} is damaged: {line[:80]!r}; extract again.")
        digest, name = match.groups()
        if not (folder / name).is_file():
            raise UserError(f"shard {name} is missing from {folder}; extract again.")
        if _sha256(folder / name) != digest:
            raise UserError(f"shard {folder / name} changed after it was written; extract again.")
    return len(lines)


def _read_text(path: Path, folder: Path) -> str:
    if not folder.is_dir():
        raise UserError(f"no shard folder at {folder}; 'avt extract' makes one.")
    if not path.is_file():
        raise UserError(
            f"{folder} is not a shard folder (no {path.name} in it); "
            "give the folder that 'avt extract --out' made."
        )
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise UserError(f"{path} is larger than {_MAX_JSON_BYTES} bytes, which no extraction makes.")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}.") from error


def _read_json(path: Path, folder: Path) -> Any:
    try:
        return json.loads(_read_text(path, folder))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); extract again.") from error


def read_info(path: str | os.PathLike) -> RecordsInfo:
    """Reads what a shard folder says about itself, without opening a shard.

    Args:
      path: shard folder.

    Returns:
      Its label sets, splits and extraction settings.

    Raises:
      UserError: no such folder, not a shard folder, damaged, or written by an incompatible version.
    """
    folder = Path(path)
    info = _read_json(folder / "dataset_info.json", folder)
    metadata = _read_json(folder / "metadata.json", folder)
    try:
        version = str(metadata["schema_version"])
        result = RecordsInfo(
            label_sets={k: tuple(map(str, v)) for k, v in metadata["label_sets"].items()},
            splits={s["name"]: sum(map(int, s["shardLengths"])) for s in info.get("splits", [])},
            frame_rate_hz=float(metadata["frame_rate_hz"]),
            short_side_px=int(metadata["short_side_px"]),
            schema_version=version,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder} is a data set, but not one that 'avt extract' wrote ({error!r} in its "
            "dataset_info.json or metadata.json)."
        ) from error
    if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise UserError(
            f"{folder} has record schema {version}, this version reads {SCHEMA_VERSION}; "
            "extract again."
        )
    return result


class RecordSource:
    """The clips of one split, by index. Picklable, and safe to read from several threads."""

    def __init__(self, path: str | os.PathLike, split: str):
        """Opens the split; see `open_split`."""
        self._folder = Path(path)
        self._split = split
        self._info = read_info(path)
        if split not in self._info.splits:
            raise UserError(
                f"{self._folder} has no split {split!r}{nearest(split, self._info.splits)}; "
                f"it has {', '.join(self._info.splits) or 'none'}."
            )
        self._features = record_features(self._info.label_sets)
        self._reader = self._open()

    def _open(self) -> Any:
        import tensorflow_datasets as tfds
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        # Only file names and lengths come from the folder. The features are rebuilt from class
        # names instead of features.json, which names Python classes to import.
        infos = tfds.core.splits.SplitDict.from_proto(*self._split_proto())
        paths = infos[self._split].filepaths
        for path in map(Path, paths):
            if path.parent != self._folder or not path.is_file():
                raise UserError(f"shard {path.name} is missing from {self._folder}; extract again.")
        try:
            reader = ArrayRecordDataSource([os.fspath(path) for path in paths])
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"a shard of split {self._split!r} in {self._folder} is cut off or damaged "
                f"({_first_line(error)}); extract again."
            ) from error
        if len(reader) != self._info.splits[self._split]:
            raise UserError(
                f"split {self._split!r} in {self._folder} holds {len(reader)} clips, but its "
                f"dataset_info.json says {self._info.splits[self._split]}; extract again."
            )
        return reader

    def _split_proto(self) -> tuple[Any, Any]:
        from tensorflow_datasets.core import dataset_info, naming

        proto = dataset_info.read_from_json(self._folder / "dataset_info.json")
        template = naming.ShardedFileTemplate(
            data_dir=self._folder, dataset_name=_DATASET_NAME, filetype_suffix="array_record"
        )
        return proto.splits, template

    @property
    def info(self) -> RecordsInfo:
        """What the shard folder says about itself."""
        return self._info

    def __len__(self) -> int:
        return self._info.splits[self._split]

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Reads clip `index`; see `open_split` for its fields.

        Raises:
          IndexError: `index` is not in [0, len).
          UserError: the record is damaged.
        """
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)} in split {self._split!r}")
        from google.protobuf.message import DecodeError

        try:
            raw = self._features.deserialize_example_np(self._reader[index])
        except (RuntimeError, ValueError, KeyError, DecodeError) as error:
            raise UserError(
                f"clip {index} of split {self._split!r} in {self._folder} is damaged "
                f"({_first_line(error)}); extract again."
            ) from error
        return {
            "id": raw["id"].decode(),
            "source": raw["source"].decode(),
            "frames": list(raw["frames"]),
            "frame_rate_hz": float(raw["frame_rate_hz"]),
            "fbank": raw["fbank"],
            "has_audio": bool(raw["has_audio"]),
            "start_sec": float(raw["start_sec"]),
            "end_sec": float(raw["end_sec"]),
            "labels": {name: int(value) for name, value in raw["labels"].items()},
        }

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self._folder, "split": self._split}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"], state["split"])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def open_split(path: str | os.PathLike, split: str) -> RecordSource:
    """Opens one split for random access.

    Args:
      path: shard folder.
      split: "train", "val" or "test".

    Returns:
      A sequence of dicts: "id" and "source" str; "frames" list of JPEG bytes; "frame_rate_hz" float;
      "fbank" float16 [s, 128], no rows without audio; "has_audio" bool; "start_sec", "end_sec"
      float, the span in the source; "labels" {label set: class index}.

    Raises:
      UserError: the folder or the split is missing or damaged; the message names what is there.
    """
    return RecordSource(path, split)
