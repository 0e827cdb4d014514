"""Puts examples together to batches, written straight to where they stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from avt_jax import axes
from avt_jax.data.loading import damaged, sampling
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.records import lazy_reader


class Source(Protocol):
    """Records by index, such as `avt_jax.data.records.open_split` gives, or a list of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


def draw_seed(index: int, rng: np.random.Generator) -> tuple[int, int]:
    """Record index -> (record index, seed of its example)."""
    return index, int(rng.integers(2**63))


class LazyRecords:
    """Records of which only the frames that are used are copied, where the source can do that."""

    def __init__(self, source: Source):
        """Takes any source."""
        self._source = source
        self._read = lazy_reader(source)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self._read(index)


class MakeTrainBatch:
    """(record index, seed) of every example -> batch of varied examples."""

    def __init__(self, source: Source, config: DataConfig):
        """Takes the training split and the data block."""
        self._source = LazyRecords(source)
        self._config = config

    def __call__(self, draws: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Makes the batch."""
        arrays = sampling.empty_arrays(self._config, len(draws))
        rows = [self._make(index, seed, _row(arrays, i)) for i, (index, seed) in enumerate(draws)]
        return _assemble(arrays, rows)

    def _make(self, index: int, seed: int, out: dict[str, np.ndarray]) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        return damaged.make_usable_example(
            lambda record: sampling.train_example(record, self._config, rng, out=out),
            self._source,
            index,
            split=self._config.train_split,
            path=self._config.path,
            max_damaged=self._config.max_damaged,
        )


class EvalBatches:
    """Padded batches of one process by their number, as a Grain source.

    Position i of a process stands for view i % V of its clip i // V.
    """

    def __init__(
        self,
        source: Source,
        config: DataConfig,
        batch_size: int,
        process_index: int,
        process_count: int,
    ):
        """Takes the arguments of `pipeline.eval_batches`."""
        self._source = LazyRecords(source)
        self._config = config
        self._batch_size = batch_size
        self._process_index = process_index
        self._process_count = process_count
        self._num_views = config.eval_views

    def __len__(self) -> int:
        # As many as the process with the most clips has.
        clips = -(-len(self._source) // self._process_count)
        return -(-clips * self._num_views // self._batch_size)

    def __getitem__(self, number: int) -> dict[str, Any]:
        views, step = self._num_views, self._process_count
        clips = len(range(self._process_index, len(self._source), step))
        first = number * self._batch_size
        positions = range(first, min(first + self._batch_size, clips * views))
        arrays = sampling.empty_arrays(self._config, self._batch_size)
        reader = _LastRecord(self._source)
        rows = [
            self._make(
                reader, self._process_index + (i // views) * step, i % views, _row(arrays, row)
            )
            for row, i in enumerate(positions)
        ]
        if not rows:
            # A batch without any clip of its own needs one to know the labels' names.
            rows = [self._make(reader, len(self._source) - 1, 0, _row(arrays, 0))]
        for array in arrays.values():
            array[len(rows) :] = array[len(rows) - 1]
        rows += [rows[-1]] * (self._batch_size - len(rows))
        return _assemble(arrays, rows, num_valid=len(positions))

    def _make(
        self, source: Source, index: int, view: int, out: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        return self._example(source, index, view, out)

    def _example(
        self, source: Source, index: int, view: int | None, out: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        return damaged.make_example(
            lambda record: sampling.eval_example(record, self._config, view=view, out=out),
            source,
            index,
            split=self._config.eval_split,
            path=self._config.path,
        )


class ViewBatches(EvalBatches):
    """All views of each clip, one after another: the unvaried one, then `views` varied ones."""

    def __init__(self, source: Source, config: DataConfig, batch_size: int, views: int, seed: int):
        """Takes the arguments of `pipeline.view_batches`."""
        super().__init__(source, config, batch_size, 0, 1)
        self._num_views = 1 + views
        self._seed = seed

    def _make(
        self, source: Source, index: int, view: int, out: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        if not view:
            return self._example(source, index, None, out)
        rng = np.random.default_rng([self._seed, index, view])
        return damaged.make_example(
            lambda record: sampling.train_example(record, self._config, rng, out=out),
            source,
            index,
            split=self._config.eval_split,
            path=self._config.path,
        )


class _LastRecord:
    """A source that remembers the record read last: its views follow each other."""

    def __init__(self, source: Source):
        self._source = source
        self._index = -1
        self._record: Mapping[str, Any] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if index != self._index:
            self._record = self._source[index]
            self._index = index
        return self._record


def _row(arrays: Mapping[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    return {name: array[row] for name, array in arrays.items()}


def _assemble(
    arrays: dict[str, np.ndarray], rows: Sequence[dict[str, Any]], num_valid: int | None = None
) -> dict[str, Any]:
    """Makes a batch of examples that have put their large arrays into `arrays`.

    Args:
      arrays: of `sampling.empty_arrays`.
      rows: the examples.
      num_valid: how many of them, the first, are real ones; None = all.
    """
    batch: dict[str, Any] = dict(arrays)
    for key in rows[0]:
        if key in arrays:
            continue
        column = [row[key] for row in rows]
        if isinstance(column[0], Mapping):
            batch[key] = {name: np.stack([item[name] for item in column]) for name in column[0]}
        else:
            batch[key] = np.array(column)
    batch[axes.VALID] = np.arange(len(rows)) < (len(rows) if num_valid is None else num_valid)
    return batch
