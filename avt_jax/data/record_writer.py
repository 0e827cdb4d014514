"""Writes records into a new shard folder, shard by shard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avt_jax.data import records

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


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
            dataset_name=records.DATASET_NAME,
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
        jpeg_quality: int = 90,
        max_shard_bytes: int = 256 * 2**20,
    ):
        """Prepares the folder's description; writes nothing yet.

        Args:
          folder: an existing, empty folder.
          label_sets: class names per label set.
          frame_rate_hz: frames per second of every record.
          short_side_px: shorter side of every frame.
          jpeg_quality: of every frame, 1 to 100.
          max_shard_bytes: > 0; a shard is closed before it would grow beyond this.
        """
        self._folder = Path(folder)
        self._label_sets = {name: list(classes) for name, classes in label_sets.items()}
        self._features = records.record_features(label_sets)
        self._frame_rate_hz = frame_rate_hz
        self._short_side_px = short_side_px
        self._jpeg_quality = jpeg_quality
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
          record: what `make_record` returns plus "labels": {set: class index}; without "flags" it
            has none.
        """
        if split not in self._splits:
            self._splits[split] = _OpenSplit(self._folder, split, self._max_shard_bytes)
        self._splits[split].add(self._features.serialize_example({"flags": (), **record}))

    def close(self) -> None:
        """Closes the shards and writes the data set's description and checksums."""
        import tensorflow_datasets as tfds

        names = sorted(self._splits, key=lambda name: (*records.SPLITS, name).index(name))
        splits = [self._splits[name].finish() for name in names]
        info = tfds.core.DatasetInfo(
            builder=tfds.core.dataset_info.DatasetIdentity(
                name=records.DATASET_NAME,
                version=tfds.core.Version(records.SCHEMA_VERSION),
                data_dir=os.fspath(self._folder),
                module_name=records.__name__,
            ),
            description="Clips as JPEG frames and log-mel filter banks, written by avt_jax.",
            features=self._features,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                schema_version=records.SCHEMA_VERSION,
                frame_rate_hz=float(self._frame_rate_hz),
                short_side_px=int(self._short_side_px),
                jpeg_quality=int(self._jpeg_quality),
                label_sets=self._label_sets,
            ),
        )
        info.set_file_format("array_record")
        info.set_splits(tfds.core.splits.SplitDict(splits))
        info.write_to_directory(self._folder)
        paths = sorted(Path(path) for split in splits for path in split.filepaths)
        lines = [f"{records.sha256_of(path)}  {path.name}\n" for path in paths]
        (self._folder / records.CHECKSUM_FILE).write_text("".join(lines), encoding="utf-8")
