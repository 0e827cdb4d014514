"""How the clips of a shard folder are read: one split, by index."""

from __future__ import annotations

import bisect
import itertools
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, SupportsIndex

from avt_jax.data.records.description import read_description, read_info
from avt_jax.data.records.parse import parse_labels, parse_record
from avt_jax.data.records.remote import local_folder
from avt_jax.data.records.schema import MEL_BINS, RecordsInfo, split_names
from avt_jax.data.records.shards import list_shards
from avt_jax.errors import UserError, first_line, nearest


class LostShard(UserError):
    """A shard file that is gone, or cannot be read at all: no record of it is to be had."""


class ShardSource:
    """The records of one split, by index. Picklable, and safe to read from several threads."""

    _remedy = "extract again"

    def __init__(self, path: str | os.PathLike[str], split: str):
        """Opens the split."""
        # Worker processes get the local folder and never download.
        self._read_folder(local_folder(path, split_names(split)), split)

    def _read_folder(self, folder: Path, split: str) -> None:
        self._folder = folder
        self._split = split
        self._info = read_description(self._folder)
        for name in split_names(split):
            if name not in self._info.splits:
                raise UserError(
                    f"{self._folder} has no split {name!r}{nearest(name, self._info.splits)}; "
                    f"it has {', '.join(self._info.splits) or 'none'}."
                )
        self._reader = self._open()

    def _open(self) -> Any:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        # Only file names and lengths come from the folder. The features are rebuilt from class
        # names instead of features.json, which names Python classes to import.
        shards = list_shards(self._folder)
        found = [one for name in split_names(self._split) for one in shards if one.split == name]
        self._paths = [shard.path for shard in found]
        self._ends = list(itertools.accumulate(shard.num_records for shard in found))
        for path in self._paths:
            if not path.is_file():
                raise UserError(f"shard {path.name} is missing from {self._folder}; extract again.")
        try:
            reader = ArrayRecordDataSource([os.fspath(path) for path in self._paths])
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"a shard of split {self._split!r} in {self._folder} is cut off or damaged "
                f"({first_line(error)}); extract again."
            ) from error
        if len(reader) != len(self):
            raise UserError(
                f"split {self._split!r} in {self._folder} holds {len(reader)} clips, but its "
                f"dataset_info.json says {len(self)}; extract again."
            )
        return reader

    @property
    def info(self) -> RecordsInfo:
        """What the shard folder says about itself."""
        return self._info

    @property
    def num_bytes(self) -> int:
        """Size of the split's shard files."""
        return sum(path.stat().st_size for path in self._paths)

    def __len__(self) -> int:
        return self._info.num_clips(self._split)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Reads record `index`.

        Raises:
          IndexError: `index` is not in [0, len).
          UserError: the record is damaged.
        """
        return self.read_lazily(index)

    def read_lazily(self, index: SupportsIndex) -> dict[str, Any]:
        """As `self[index]`, but of clips, a frame is copied when it is asked for.

        Args:
          index: of the clip.

        Raises:
          IndexError: `index` is not in [0, len).
          LostShard: its file is gone, or cannot be read at all.
          UserError: the record is damaged.
        """
        return self._parsed(index, self._parse)

    def read_labels(self, index: SupportsIndex) -> dict[str, Any]:
        """The field "labels" of clip `index`; of the others no more is seen than their checksum.

        Raises:
          IndexError, LostShard, UserError: as `read_lazily`.
        """
        info = self._info
        return self._parsed(index, lambda raw: parse_labels(raw, info.label_sets, info.multi_label))

    def _parsed(
        self, index: SupportsIndex, parse: Callable[[bytes], dict[str, Any]]
    ) -> dict[str, Any]:
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)} in split {self._split!r}")
        try:
            return parse(self._reader[index])
        except (RuntimeError, ValueError, OSError) as error:
            self._check_shard(index)
            raise UserError(
                f"clip {index} of split {self._split!r} in {self._folder} is damaged "
                f"({first_line(error)}); {self._remedy}."
            ) from error

    def _parse(self, serialized: bytes) -> dict[str, Any]:
        """A record's fields; ValueError where it is damaged."""
        raise NotImplementedError

    def _check_shard(self, index: int) -> None:
        """Raises LostShard where not a record but the whole file of it cannot be read."""
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        number = bisect.bisect_right(self._ends, index)
        path = self._paths[number]
        begin = self._ends[number - 1] if number else 0
        try:
            path.open("rb").close()
            found = len(ArrayRecordDataSource([os.fspath(path)]))
            reason = f"{found} clips where there were {self._ends[number] - begin}"
            if found == self._ends[number] - begin:
                return
        except OSError as error:
            reason = error.strerror or str(error)
        except (RuntimeError, ValueError) as error:
            reason = first_line(error)
        raise LostShard(
            f"shard {path} can no longer be read ({reason}); put it back, or extract again, then "
            "the same command goes on."
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self._folder, "split": self._split}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._read_folder(state["folder"], state["split"])


class RecordSource(ShardSource):
    """The clips of one split, by index; see `open_split`."""

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Reads clip `index`; see `open_split` for its fields.

        Raises:
          IndexError: `index` is not in [0, len).
          UserError: the record is damaged.
        """
        record = self.read_lazily(index)
        return record | {"frames": list(record["frames"])}

    def _parse(self, serialized: bytes) -> dict[str, Any]:
        info = self._info
        return parse_record(serialized, info.label_sets, MEL_BINS, info.multi_label)


def open_split(path: str | os.PathLike[str], split: str) -> RecordSource:
    """Opens one split for random access.

    Args:
      path: shard folder, or URL of one; the split's shards are then copied to this machine first.
      split: "train", "val" or "test", or several of them, one after another: "train+val".

    Returns:
      A sequence of dicts: "id" and "source" str; "frames" list of JPEG bytes; "frame_rate_hz"
      float; "fbank" float16 [s, 128], no rows without audio; "has_audio" bool; "start_sec" and
      "end_sec" float, the span in the source; "flags" list of str, codes as in FLAG_CODES;
      "labels" {label set: class index; uint8 [y] of 0 and 1 for a multi-label set}.

    Raises:
      UserError: the folder or the split is missing or damaged; the message names what is there.
    """
    read_info(path)  # refuses cached tokens
    return RecordSource(path, split)
