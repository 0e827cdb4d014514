"""Writes records into shard files, and the description that makes a folder of them readable."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from avt_jax.data.records.labels import class_indices
from avt_jax.data.records.schema import (
    CHECKSUM_FILE,
    DATASET_NAME,
    SPLITS,
    TokensInfo,
    record_features,
    shard_names,
    written_version,
)
from avt_jax.host.checksum import sha256_of

# One record per group: random access then reads one record, not a block of them. JPEG does not get
# smaller by compressing it again; a whole record does by 4 %, at five times the time to write it.
_ARRAY_RECORD_OPTIONS = "group_size:1,uncompressed"
_CLIPS = "Clips as JPEG frames and log-mel filter banks, written by avt_jax."
_TOKENS = "Tokens that frozen encoders gave of clips, written by avt_jax."
# Written into dataset_info.json; a folder's bytes do not depend on where this module lies.
_MODULE_NAME = "avt_jax.data.records"


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """A finished shard file.

    Attributes:
      num_records: > 0.
      num_bytes: total size of the records, in bytes.
      sha256: of the file, in hexadecimal.
    """

    num_records: int
    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class FolderInfo:
    """What is the same for all records of a folder.

    Attributes:
      label_sets: class names per label set.
      frame_rate_hz: frames per second of every record.
      short_side_px: shorter side of every frame.
      jpeg_quality: of every frame, 1 to 100.
      multi_label: the label sets of which a clip may have any number of classes.
      tokens: of a folder of cached tokens; None = clips.
    """

    label_sets: Mapping[str, tuple[str, ...]]
    frame_rate_hz: float
    short_side_px: int
    jpeg_quality: int
    multi_label: tuple[str, ...] = ()
    tokens: TokensInfo | None = None


def make_serializer(
    label_sets: Mapping[str, tuple[str, ...]],
    multi_label: Collection[str] = (),
    tokens: TokensInfo | None = None,
) -> Callable[[Mapping[str, Any]], bytes]:
    """Gives the function that turns a record into the bytes that are stored.

    Args:
      label_sets: class names per label set.
      multi_label: those of which a clip may have any number of classes.
      tokens: of a folder of cached tokens; None = clips.

    Returns:
      A function of what `make_record` returns plus "labels": {set: class index, or what
      `labels.class_indices` takes for a multi-label set}; without "flags" it has none. Equal
      records have equal bytes, in any process.
    """
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = record_features(label_sets, multi_label=multi_label, tokens=tokens)
    serializer = ExampleSerializer(features.get_serialized_info())

    def serialize(record: Mapping[str, Any]) -> bytes:
        labels = {
            name: list(class_indices(value)) if name in multi_label else value
            for name, value in record["labels"].items()
        }
        whole = {"flags": (), **record, "labels": labels}
        example = serializer.get_tf_example(features.encode_example(whole))
        # A protobuf map has no order of its own: without this each process writes its own order.
        return example.SerializeToString(deterministic=True)

    return serialize


class ShardFile:
    """A shard while it is being written."""

    def __init__(self, path: Path):
        """Creates the file.

        Raises:
          RuntimeError: it cannot be created.
        """
        from array_record.python.array_record_module import ArrayRecordWriter

        self.path = path
        self.num_records = 0
        self.num_bytes = 0
        self._writer = ArrayRecordWriter(os.fspath(path), _ARRAY_RECORD_OPTIONS)

    def add(self, serialized: bytes) -> None:
        """Appends a record.

        Raises:
          RuntimeError: it cannot be written.
        """
        self._writer.write(serialized)
        self.num_records += 1
        self.num_bytes += len(serialized)

    def close(self) -> ShardInfo:
        """Ends the file; it is on the disk when this returns.

        Raises:
          RuntimeError: it cannot be written.
          OSError: it cannot be written.
        """
        self._writer.close()
        with open(self.path, "r+b") as file:
            os.fsync(file.fileno())
        return ShardInfo(self.num_records, self.num_bytes, sha256_of(self.path))

    def discard(self) -> None:
        """Gives the shard up."""
        with contextlib.suppress(Exception):  # what made it useless may be why it cannot be closed
            self._writer.close()
        self.path.unlink(missing_ok=True)


def sorted_splits(names: Sequence[str]) -> list[str]:
    """Puts the usual splits first, in their usual order; others keep theirs."""
    return sorted(names, key=lambda name: (*SPLITS, *names).index(name))


def write_description(
    folder: Path, info: FolderInfo, shards: Mapping[str, Sequence[ShardInfo]]
) -> None:
    """Writes everything but the shards: TFDS's files, class lists and checksums.

    Args:
      folder: where the shards are, under the names of `shard_names`.
      info: what it says about all records.
      shards: per split, in order.
    """
    import tensorflow_datasets as tfds

    splits, lines = [], []
    for name in sorted_splits(list(shards)):
        template = tfds.core.ShardedFileTemplate(
            dataset_name=DATASET_NAME,
            data_dir=folder,
            split=name,
            filetype_suffix="array_record",
        )
        splits.append(
            tfds.core.SplitInfo(
                name=name,
                shard_lengths=[shard.num_records for shard in shards[name]],
                num_bytes=sum(shard.num_bytes for shard in shards[name]),
                filename_template=template,
            )
        )
        files = shard_names(name, len(shards[name]))
        lines += [(file, shard.sha256) for file, shard in zip(files, shards[name], strict=True)]
    version = written_version(info.multi_label)
    description = tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(
            name=DATASET_NAME,
            version=tfds.core.Version(version),
            data_dir=os.fspath(folder),
            module_name=_MODULE_NAME,
        ),
        description=_TOKENS if info.tokens else _CLIPS,
        features=record_features(info.label_sets, multi_label=info.multi_label, tokens=info.tokens),
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict(
            schema_version=version,
            frame_rate_hz=float(info.frame_rate_hz),
            short_side_px=int(info.short_side_px),
            jpeg_quality=int(info.jpeg_quality),
            label_sets={name: list(classes) for name, classes in info.label_sets.items()},
            **({"multi_label": list(info.multi_label)} if info.multi_label else {}),
            **({"tokens": dataclasses.asdict(info.tokens)} if info.tokens else {}),
        ),
    )
    description.set_file_format("array_record")
    description.set_splits(tfds.core.splits.SplitDict(splits))
    description.write_to_directory(folder)
    sums = "".join(f"{digest}  {file}\n" for file, digest in sorted(lines))
    (folder / CHECKSUM_FILE).write_text(sums, encoding="utf-8")


class RecordWriter:
    """Writes records into a new TFDS data set; `close` makes it readable.

    The folder is not complete before `close`: write to a temporary name and rename afterwards.
    Records keep the order in which they are added.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        label_sets: Mapping[str, tuple[str, ...]],
        frame_rate_hz: float,
        short_side_px: int,
        jpeg_quality: int = 90,
        max_shard_bytes: int = 256 * 2**20,
        multi_label: tuple[str, ...] = (),
        tokens: TokensInfo | None = None,
    ):
        """Prepares the folder's description; writes nothing yet.

        Args:
          folder: an existing, empty folder.
          label_sets: class names per label set.
          frame_rate_hz: frames per second of every record.
          short_side_px: shorter side of every frame.
          jpeg_quality: of every frame, 1 to 100.
          max_shard_bytes: > 0; a shard is closed before it would grow beyond this.
          multi_label: the label sets of which a clip may have any number of classes.
          tokens: of a folder of cached tokens; None = clips.
        """
        self._folder = Path(folder)
        video = (frame_rate_hz, short_side_px, jpeg_quality)
        self._info = FolderInfo(dict(label_sets), *video, multi_label, tokens)
        self._serialize = make_serializer(label_sets, multi_label, tokens)
        self._max_shard_bytes = max_shard_bytes
        self._open: dict[str, ShardFile] = {}
        self._closed: dict[str, list[ShardInfo]] = {}

    @property
    def num_bytes(self) -> int:
        """Size of all records so far, in bytes."""
        closed = sum(shard.num_bytes for shards in self._closed.values() for shard in shards)
        return closed + sum(shard.num_bytes for shard in self._open.values())

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        """Appends one record.

        Args:
          split: name of the split.
          record: what `make_serializer` takes.
        """
        serialized = self._serialize(record)
        shard = self._open.get(split)
        if shard is not None and shard.num_bytes + len(serialized) > self._max_shard_bytes:
            self._close_shard(split)
            shard = None
        if shard is None:
            index = len(self._closed.setdefault(split, []))
            shard = self._open[split] = ShardFile(self._part(split, index))
        shard.add(serialized)

    def _part(self, split: str, index: int) -> Path:
        return self._folder / f"{split}.part-{index:05d}"

    def _close_shard(self, split: str) -> None:
        self._closed[split].append(self._open.pop(split).close())

    def close(self) -> None:
        """Closes the shards and writes the data set's description and checksums."""
        for split in list(self._open):
            self._close_shard(split)
        for split, shards in self._closed.items():
            for index, name in enumerate(shard_names(split, len(shards))):
                os.replace(self._part(split, index), self._folder / name)
        write_description(self._folder, self._info, self._closed)
