"""What one stored clip looks like, and how a folder of shards is read.

A shard folder is a TFDS data set (`dataset_info.json`, `features.json`, `metadata.json`, shards of
ArrayRecord per split), so `tfds.builder_from_directory(folder)` opens it too. TensorFlow is not
needed.

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

from avt_jax.data.record_parse import parse_record
from avt_jax.errors import UserError, nearest

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

SCHEMA_VERSION = "1.1.0"
"""Version of the record layout. 1.1.0 added `flags`; folders of 1.0.0 are read as without any."""

FLAG_CODES = (
    "silent_audio",  # there is sound, but never louder than -60 dBFS
    "partial_audio",  # the sound covers only a part of the clip
    "still_video",  # all frames show the same picture
    "short",  # the pictures end before the manifest's end
    "damaged",  # packets that could not be decoded were left out
)
MEL_BINS = 128
SPLITS = ("train", "val", "test")
CHECKSUM_FILE = "SHA256SUMS"
DATASET_NAME = "avt_clips"

_MAX_JSON_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class RecordsInfo:
    """What a shard folder says about itself.

    Attributes:
      label_sets: class names of every label set, in the order of their indices.
      splits: number of clips per split.
      frame_rate_hz: frames stored per second of video.
      short_side_px: length of the shorter side of a stored frame.
      jpeg_quality: of the stored frames, 1 to 100.
      schema_version: version of the record layout, `SCHEMA_VERSION` when it was written.
    """

    label_sets: dict[str, tuple[str, ...]]
    splits: dict[str, int]
    frame_rate_hz: float
    short_side_px: int
    jpeg_quality: int
    schema_version: str


def record_features(
    label_sets: Mapping[str, tuple[str, ...]], *, schema_version: str = SCHEMA_VERSION
) -> tfds.features.FeaturesDict:
    """The TFDS features of one clip.

    Args:
      label_sets: class names per label set.
      schema_version: of the folder that is read or written, "1.<minor>.<patch>".

    Returns:
      A features dict. Times are stored as raw bytes because TFDS would round them to float32,
      which an hour into a film is a quarter of a millisecond off.
    """
    from tensorflow_datasets import features

    seconds = features.Tensor(shape=(), dtype=np.float64, encoding="bytes")
    # A later minor version only adds fields, and those are not read.
    has_flags = int(schema_version.split(".")[1]) >= 1
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
            **({"flags": features.Sequence(features.Text())} if has_flags else {}),
            "labels": features.FeaturesDict(
                {name: features.ClassLabel(names=list(c)) for name, c in label_sets.items()}
            ),
        }
    )


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_checksums(path: str | os.PathLike) -> int:
    """Compares every shard with the checksum written when it was made.

    Args:
      path: shard folder, or URL of one.

    Returns:
      The number of shards compared.

    Raises:
      UserError: the checksums are missing or unreadable, or a shard is missing or differs.
    """
    folder = _local(path)
    lines = _read_text(folder / CHECKSUM_FILE, folder).splitlines()
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+)", line)
        if not match:
            raise UserError(f"{folder / CHECKSUM_FILE} is damaged: {line[:80]!r}; extract again.")
        digest, name = match.groups()
        if not (folder / name).is_file():
            raise UserError(f"shard {name} is missing from {folder}; extract again.")
        if sha256_of(folder / name) != digest:
            raise UserError(f"shard {folder / name} changed after it was written; extract again.")
    return len(lines)


def _local(path: str | os.PathLike, splits: tuple[str, ...] | None = None) -> Path:
    from avt_jax.data import remote

    return remote.local_folder(path, splits)


def _read_text(path: Path, folder: Path) -> str:
    if not folder.is_dir():
        raise UserError(f"no shard folder at {folder}; 'avt extract' makes one.")
    if not path.is_file():
        raise UserError(
            f"{folder} is not a shard folder (no {path.name} in it); "
            "give the folder that 'avt extract --out' made."
        )
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise UserError(
            f"{path} is larger than {_MAX_JSON_BYTES} bytes, which no extraction makes."
        )
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
      path: shard folder, or URL of one.

    Returns:
      Its label sets, splits and extraction settings.

    Raises:
      UserError: no such folder, not a shard folder, damaged, or written by an incompatible version.
    """
    folder = _local(path, ())
    info = _read_json(folder / "dataset_info.json", folder)
    metadata = _read_json(folder / "metadata.json", folder)
    try:
        version = str(metadata["schema_version"])
        result = RecordsInfo(
            label_sets={k: tuple(map(str, v)) for k, v in metadata["label_sets"].items()},
            splits={s["name"]: sum(map(int, s["shardLengths"])) for s in info.get("splits", [])},
            frame_rate_hz=float(metadata["frame_rate_hz"]),
            short_side_px=int(metadata["short_side_px"]),
            jpeg_quality=int(metadata["jpeg_quality"]),
            schema_version=version,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder} is a data set, but not one that 'avt extract' wrote ({error!r} in its "
            "dataset_info.json or metadata.json)."
        ) from error
    if not re.fullmatch(rf"{SCHEMA_VERSION.split('.')[0]}\.\d{{1,4}}\.\d{{1,4}}", version):
        raise UserError(
            f"{folder} has record schema {version}, this version reads {SCHEMA_VERSION}; "
            "extract again."
        )
    return result


class RecordSource:
    """The clips of one split, by index. Picklable, and safe to read from several threads."""

    def __init__(self, path: str | os.PathLike, split: str):
        """Opens the split; see `open_split`."""
        # Worker processes get the local folder and never download.
        self._folder = _local(path, (split,))
        self._split = split
        self._info = read_info(self._folder)
        if split not in self._info.splits:
            raise UserError(
                f"{self._folder} has no split {split!r}{nearest(split, self._info.splits)}; "
                f"it has {', '.join(self._info.splits) or 'none'}."
            )
        self._reader = self._open()

    def _open(self) -> Any:
        import tensorflow_datasets as tfds
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        # Only file names and lengths come from the folder. The features are rebuilt from class
        # names instead of features.json, which names Python classes to import.
        infos = tfds.core.splits.SplitDict.from_proto(*self._split_proto())
        self._paths = [Path(path) for path in infos[self._split].filepaths]
        for path in self._paths:
            if path.parent != self._folder or not path.is_file():
                raise UserError(f"shard {path.name} is missing from {self._folder}; extract again.")
        try:
            reader = ArrayRecordDataSource([os.fspath(path) for path in self._paths])
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
            data_dir=self._folder, dataset_name=DATASET_NAME, filetype_suffix="array_record"
        )
        return proto.splits, template

    @property
    def info(self) -> RecordsInfo:
        """What the shard folder says about itself."""
        return self._info

    @property
    def num_bytes(self) -> int:
        """Size of the split's shard files."""
        return sum(path.stat().st_size for path in self._paths)

    def __len__(self) -> int:
        return self._info.splits[self._split]

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Reads clip `index`; see `open_split` for its fields.

        Raises:
          IndexError: `index` is not in [0, len).
          UserError: the record is damaged.
        """
        record = self.read_lazily(index)
        return record | {"frames": list(record["frames"])}

    def read_lazily(self, index: SupportsIndex) -> dict[str, Any]:
        """As `self[index]`, but "frames" is a sequence that copies a frame when asked for it.

        Args:
          index: of the clip.

        Raises:
          IndexError: `index` is not in [0, len).
          UserError: the record is damaged.
        """
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)} in split {self._split!r}")
        try:
            return parse_record(self._reader[index], tuple(self._info.label_sets), MEL_BINS)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"clip {index} of split {self._split!r} in {self._folder} is damaged "
                f"({_first_line(error)}); extract again."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self._folder, "split": self._split}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"], state["split"])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def open_split(path: str | os.PathLike, split: str) -> RecordSource:
    """Opens one split for random access.

    Args:
      path: shard folder, or URL of one; the split's shards are then copied to this machine first.
      split: "train", "val" or "test".

    Returns:
      A sequence of dicts: "id" and "source" str; "frames" list of JPEG bytes; "frame_rate_hz"
      float; "fbank" float16 [s, 128], no rows without audio; "has_audio" bool; "start_sec" and
      "end_sec" float, the span in the source; "flags" list of str, codes as in FLAG_CODES;
      "labels" {label set: class index}.

    Raises:
      UserError: the folder or the split is missing or damaged; the message names what is there.
    """
    return RecordSource(path, split)
