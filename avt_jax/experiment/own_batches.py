"""Batches of the user's own: checked, filled up, repeated, and continued where a run stopped."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from avt_jax import axes
from avt_jax.data.loading import pipeline
from avt_jax.data.loading.config import DataConfig
from avt_jax.errors import UserError, nearest
from avt_jax.experiment.splits import is_source
from avt_jax.models.inputs import InputSpec
from avt_jax.training.inputs import as_array, checked_inputs, flags, given


class OwnBatches:
    """An endless iterator over batches that the user's program makes.

    Args:
      batches: any iterable. One that has `get_state` and `set_state` is continued with them;
        another is continued by going through what was seen before.
      spec: shape of what the model reads.
      classes: {label set: number of classes}.
      batch_size: clips of a batch.
      multi_label: the label sets whose labels are [b, y] of 0 and 1.
    """

    def __init__(
        self,
        batches: Iterable[Mapping[str, Any]],
        spec: InputSpec,
        classes: Mapping[str, int],
        batch_size: int,
        multi_label: Collection[str] = (),
    ):
        self._batches = batches
        self._spec, self._classes, self._batch_size = spec, classes, batch_size
        self._multi_label = multi_label
        self._running: Iterator[Mapping[str, Any]] = iter(batches)
        self._position = 0

    @property
    def num_damaged(self) -> int:
        """Records that were passed over: none, a bad batch is an error."""
        return 0

    def __iter__(self) -> OwnBatches:
        return self

    def __next__(self) -> dict[str, Any]:
        """The next batch, complete.

        Raises:
          UserError: the iterator has ended, or a batch is not what the config says.
        """
        batch = checked(
            self._take(), self._spec, self._classes, self._batch_size, self._multi_label
        )
        if len(batch[axes.VALID]) != self._batch_size:
            raise UserError(
                f"batch {self._position} has {len(batch[axes.VALID])} clips, but "
                f"config.train.batch_size is {self._batch_size}; make them equal."
            )
        self._position += 1
        return batch

    def _take(self) -> Mapping[str, Any]:
        found = next(self._running, None)
        if found is None and iter(self._batches) is not self._batches:
            self._running = iter(self._batches)
            found = next(self._running, None)
        if found is None:
            raise UserError(
                f"the iterator of training batches ended after {self._position}; give one that "
                "goes on, a list, or a smaller config.train.steps."
            )
        return found

    def get_state(self) -> dict[str, Any]:
        """Where it stands, ready for JSON."""
        own = getattr(self._batches, "get_state", None)
        return {"batches": self._position, "own": own() if own else None}

    def set_state(self, state: Mapping[str, Any]) -> list[str]:
        """Goes to a saved position; returns what the user should know of it, nothing."""
        restore = getattr(self._batches, "set_state", None)
        if restore and state.get("own") is not None:
            restore(state["own"])
            self._running = iter(self._batches)
            self._position = state["batches"]
            return []
        for _ in itertools.repeat(None, state["batches"] - self._position):
            self._take()
            self._position += 1
        return []

    def close(self) -> None:
        """Nothing to end."""


def checked(
    batch: Mapping[str, Any],
    spec: InputSpec,
    classes: Mapping[str, int],
    most: int,
    multi_label: Collection[str] = (),
) -> dict[str, Any]:
    """A batch with every key of `avt_jax.axes`, after checking what is given.

    Args:
      batch: "video" uint8 [b, t, h, w, 3], "audio" [b, s, f] raw log-mel and "labels" {label set:
        [b] int} at least. Without "has_audio" every clip has sound unless all of its bins are the
        log floor; without "has_video" every clip has a picture; without "group" every
        clip is from another video; without "valid" all are real.
      spec: shape of what the model reads.
      classes: {label set: number of classes}.
      most: most clips a batch may have.
      multi_label: the label sets whose labels are [b, y] of 0 and 1.

    Raises:
      UserError: a key is missing, or an array of another shape, type or range.
    """
    inputs = checked_inputs(batch, spec)
    count = len(inputs[axes.VIDEO])
    if count > most:
        raise UserError(f"a batch has {count} clips; give 1 to {most}.")
    labels = _labels(given(batch, axes.LABELS), classes, count, multi_label)
    found: dict[str, Any] = {**inputs, axes.LABELS: labels, axes.GROUP: _groups(batch, count)}
    found[axes.VALID] = np.ones(count, bool)
    if axes.VALID in batch:
        found[axes.VALID] = flags(batch, axes.VALID, count)
    id_b = np.asarray(batch.get(axes.ID, [str(i) for i in range(count)]))
    if id_b.shape != (count,):
        raise UserError(f"a batch's 'id' has the shape {id_b.shape}; give ({count},).")
    return found | {axes.ID: id_b}


def _labels(
    labels: Any, classes: Mapping[str, int], count: int, multi_label: Collection[str]
) -> dict[str, np.ndarray]:
    if not isinstance(labels, Mapping):
        raise UserError(
            f"a batch's 'labels' is a {type(labels).__name__}; give a dict, "
            f"{{{next(iter(classes))!r}: array}}."
        )
    found = {}
    for name, number in classes.items():
        if name not in labels:
            raise UserError(
                f"a batch's 'labels' has no {name!r}{nearest(name, map(str, labels))}; give an "
                "array for every label set."
            )
        check = _many_hot if name in multi_label else _classes
        found[name] = check(as_array(labels[name], f"labels[{name!r}]"), name, number, count)
    return found


def _many_hot(label_by: np.ndarray, name: str, number: int, count: int) -> np.ndarray:
    if label_by.shape != (count, number) or not np.isin(label_by, (0, 1)).all():
        raise UserError(
            f"a batch's labels[{name!r}], {label_by.dtype} {label_by.shape}, are not 0 and 1 of "
            f"each class; the set is multi-label, so give ({count}, {number}) of them."
        )
    return label_by.astype(np.int32)


def _classes(label_b: np.ndarray, name: str, number: int, count: int) -> np.ndarray:
    start = f"a batch's labels[{name!r}]"
    if label_b.shape == (count, number) and number > 1:
        raise UserError(
            f"{start} has the shape {label_b.shape}, a number for each class; give class indices "
            f"({count},): labels.argmax(1); or, where a clip has several classes, give "
            f"OwnData(multi_label=({name!r},))."
        )
    if label_b.shape != (count,):
        raise UserError(
            f"{start} has the shape {label_b.shape} and 'video' has {count} clips; give ({count},)."
        )
    if label_b.dtype.kind not in "iu":
        raise UserError(
            f"{start} is of type {label_b.dtype}; give whole numbers from 0 to {number - 1}."
        )
    wrong_b = (label_b < 0) | (label_b >= number)
    if wrong_b.any():
        clip = int(wrong_b.argmax())
        raise UserError(
            f"{start} of clip {clip} is {label_b[clip]}, and {number} classes have the numbers 0 "
            f"to {number - 1}; give one of them."
        )
    return label_b.astype(np.int32)


def _groups(batch: Mapping[str, Any], count: int) -> np.ndarray:
    if axes.GROUP not in batch:
        return np.arange(count, dtype=np.int32)
    group_b = as_array(batch[axes.GROUP], repr(axes.GROUP))
    if group_b.shape != (count,):
        raise UserError(f"a batch's 'group' has the shape {group_b.shape}; give ({count},).")
    if group_b.dtype.kind not in "iu" or (group_b.astype(np.int32) != group_b).any():
        raise UserError(
            f"a batch's 'group' is of type {group_b.dtype}; give whole numbers that fit in int32, "
            "one for each source video."
        )
    return group_b.astype(np.int32)


def evaluated_batches(
    split: Any,
    data: DataConfig,
    spec: InputSpec,
    classes: Mapping[str, int],
    batch_size: int,
    multi_label: Collection[str],
) -> Any:
    """Every clip of this process's part of a split once, padded; own batches as they are.

    Args:
      split: records by index, or an iterable of batches.
      data: the data block.
      spec, classes, multi_label: as for `OwnBatches`.
      batch_size: of this process.
    """
    if is_source(split):
        return pipeline.eval_batches(
            split,
            data,
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
    return (
        _padded(checked(batch, spec, classes, batch_size, multi_label), batch_size)
        for batch in split
    )


def _padded(batch: dict[str, Any], size: int) -> dict[str, Any]:
    """Fills a batch up with copies of its last clip, not valid."""
    missing = size - len(batch[axes.VALID])
    if not missing:
        return batch
    filled = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], missing, 0)]), batch)
    filled[axes.VALID][-missing:] = False
    return filled
