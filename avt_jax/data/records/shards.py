"""The shard files of a folder: which record lies where, and how to read one file on its own."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from avt_jax.data.records.description import read_description, shard_lengths
from avt_jax.data.records.remote import local_folder
from avt_jax.data.records.schema import RecordsInfo, record_features, shard_names, split_names
from avt_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a split.

    Attributes:
      split: name of the split.
      path: the file; it may be missing.
      first: index in the split of its first record.
      num_records: how many dataset_info.json says it has.
    """

    split: str
    path: Path
    first: int
    num_records: int


def list_shards(path: str | os.PathLike[str]) -> tuple[Shard, ...]:
    """The shards that dataset_info.json names, split by split, in the order of their records.

    Args:
      path: shard folder, or URL of one.

    Raises:
      UserError: not a shard folder, or its description is damaged.
    """
    folder = local_folder(path, ())
    read_description(folder)  # refuses what is not a shard folder, with a reason
    shards = []
    for split, lengths in shard_lengths(folder).items():
        first = 0
        for name, length in zip(shard_names(split, len(lengths)), lengths, strict=True):
            shards.append(Shard(split, folder / name, first, length))
            first += length
    return tuple(shards)


def locate(path: str | os.PathLike[str], split: str, index: int) -> tuple[str, int]:
    """Finds a record's file.

    Args:
      path: shard folder.
      split: name of a split, or of several: "train+val".
      index: of a clip in the split, >= 0.

    Returns:
      (name of the shard file, index of the record within it).

    Raises:
      UserError: not a shard folder, or it has no such record.
    """
    shards, first = list_shards(path), 0
    for shard in (one for name in split_names(split) for one in shards if one.split == name):
        if 0 <= index - first < shard.num_records:
            return shard.path.name, index - first
        first += shard.num_records
    raise UserError(f"{path} has no record {index} in a split {split!r}.")


class ShardReader:
    """The records of one shard file. A damaged shard does not keep others from being read."""

    def __init__(self, path: str | os.PathLike[str], info: RecordsInfo):
        """Opens the file.

        Args:
          path: the shard file.
          info: of its folder.

        Raises:
          RuntimeError: the file is damaged.
          ValueError: the file is damaged.
        """
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._features = record_features(
            info.label_sets, schema_version=info.schema_version, multi_label=info.multi_label
        )
        self._reader = ArrayRecordDataSource([os.fspath(path)])

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, index: int) -> dict[str, Any]:
        """Reads one record; its fields are those of `records.open_split`, not yet checked.

        Raises:
          Exception: the record is damaged; what is raised depends on where.
        """
        raw = self._features.deserialize_example_np(self._reader[index])
        texts = {name: raw[name].decode() for name in ("id", "source")}
        flags = [code.decode() for code in raw.get("flags", ())]
        return {**raw, **texts, "frames": list(raw["frames"]), "flags": flags}
