"""Stored records that cannot be used: training passes over a few of them and counts them.

A training example whose record is damaged is made from the next record instead, so what takes its
place depends on the data alone and not on threads, workers or processes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from avt_jax.data.records import shards
from avt_jax.data.records.source import LostShard
from avt_jax.errors import UserError, first_line
from avt_jax.host.output.terminal import printable

KEY = "damaged"
"""Key of an example and a batch, str: the records passed over, "" when there were none."""


class DamagedRecord(UserError):
    """A record that cannot be read, or of which no example can be made."""


class WrongRecord(UserError):
    """A record that the user's program makes otherwise than it should: an error, no damage."""


def make_example(
    make: Callable[[Mapping[str, Any]], dict[str, Any]],
    source: Any,
    index: int,
    *,
    split: str,
    path: str,
) -> dict[str, Any]:
    """Reads a record and makes its example.

    Args:
      make: record -> example.
      source: records by index.
      index: which one.
      split: for the error message.
      path: for the error message, the shard folder.

    Returns:
      The example.

    Raises:
      LostShard: the record's file is gone, or cannot be read at all.
      WrongRecord: as the source raises it.
      DamagedRecord: reading or making failed; names the split and index, and shard file and index
        within it where `path` is a shard folder.
    """
    try:
        return make(source[index])
    except (LostShard, WrongRecord):
        raise
    except UserError as error:
        reason = str(error)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = f"clip {index} of split {split!r} in {path} cannot be used ({first_line(error)})."
    try:
        shard, position = shards.locate(path, split, index)
    except UserError:  # records that are not in a folder, or in one that is gone
        raise DamagedRecord(reason) from None
    raise DamagedRecord(f"record {position} of shard {shard}: {reason}") from None


def make_usable_example(
    make: Callable[[Mapping[str, Any]], dict[str, Any]],
    source: Any,
    index: int,
    *,
    split: str,
    path: str,
    max_damaged: int,
) -> dict[str, Any]:
    """Makes the example of a record, or of the first one after it that is not damaged.

    Args:
      make: record -> example.
      source: records by index.
      index: of the record wanted.
      split: for messages.
      path: for messages, the shard folder.
      max_damaged: records that may be passed over.

    Returns:
      The example; under `KEY` the records that were passed over.

    Raises:
      UserError: more than `max_damaged` were damaged, or all; names the last. Or a shard is lost.
    """
    damaged: list[tuple[int, str]] = []
    for step in range(len(source)):
        candidate = (index + step) % len(source)
        try:
            example = make_example(make, source, candidate, split=split, path=path)
        except DamagedRecord as error:
            damaged.append((candidate, str(error)))
            if len(damaged) > max_damaged:
                break
        else:
            return example | {KEY: json.dumps(damaged) if damaged else ""}
    raise too_many(len(damaged), damaged[-1][1], path=path, max_damaged=max_damaged)


def too_many(count: int, last: str, *, path: str, max_damaged: int) -> UserError:
    """The error of a training that has met more damaged records than it may.

    Args:
      count: how many.
      last: what was wrong with the last one.
      path: shard folder.
      max_damaged: how many may be.
    """
    return UserError(
        f"training met {count} damaged record(s) and config.data.max_damaged is {max_damaged}; the "
        f"last one: {last} 'avt shards verify {path}' lists all of them, 'avt shards reshard "
        f"{path} OUT --drop-damaged' leaves them out. The same command goes on with "
        "--config.data.path=OUT then, or with a larger --config.data.max_damaged."
    )


class DamageCount:
    """The different damaged records that a training has met, up to a limit."""

    def __init__(self, *, path: str, num_clips: int, max_damaged: int):
        """Starts with none.

        Args:
          path: shard folder, for messages.
          num_clips: in the split.
          max_damaged: most records that may be damaged.
        """
        self._path = path
        self._num_clips = num_clips
        self._max_damaged = max_damaged
        self._indices: set[int] = set()

    def __len__(self) -> int:
        return len(self._indices)

    def take(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Counts what a batch says was passed over.

        Args:
          batch: with `KEY`.

        Returns:
          The batch without `KEY`.

        Raises:
          UserError: over the limit; names the last record. The count stays as it was.
        """
        met: dict[int, str] = {}
        for text in batch[KEY].tolist():
            met |= {index: reason for index, reason in (json.loads(text) if text else [])}
        indices = self._indices | met.keys()
        if len(indices) > self._max_damaged:
            last = list(met.values())[-1]
            raise too_many(len(indices), last, path=self._path, max_damaged=self._max_damaged)
        for index in sorted(met.keys() - self._indices):
            said = printable(f"passed over a damaged record: {met[index]}")
            logging.getLogger(__name__).warning("%s", said)
        self._indices = indices
        return {name: value for name, value in batch.items() if name != KEY}

    def get_state(self) -> list[int]:
        """The indices in the split, ready for JSON."""
        return sorted(self._indices)

    def set_state(self, state: Any) -> None:
        """Continues from a saved count.

        Args:
          state: from `get_state`.

        Raises:
          UserError: it is damaged.
        """
        if not isinstance(state, list) or not all(
            type(index) is int and 0 <= index < self._num_clips for index in state
        ):
            raise UserError(f"the saved list of damaged records is itself damaged: {state!r}.")
        self._indices = set(state)
