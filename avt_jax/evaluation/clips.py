"""What was predicted for each clip: kept while a split is judged, written as a table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avt_jax.data.manifests.label_columns import join_names
from avt_jax.evaluation.classification import TOP_K, class_ranks, combine_best
from avt_jax.host.new_files import replacing, replacing_path
from avt_jax.host.output.cells import CellWriter


@dataclass(frozen=True)
class SetPredictions:
    """The predictions for one label set.

    Attributes:
      label_n: [n] int64 true class.
      rank_n: [n] int64 classes that came before the true one; 0 = right.
      true_n: [n] float32 probability of the true class.
      top_nk: [n, k] int64 most probable classes, best first; k = 5, or all where there are fewer.
      p_nk: [n, k] float32 their probabilities.
      labels_ny: of a multi-label set, [n, y] of 0 and 1; then the true class above is the most
        probable one that applies, -1 of a clip without any.
    """

    label_n: np.ndarray
    rank_n: np.ndarray
    true_n: np.ndarray
    top_nk: np.ndarray
    p_nk: np.ndarray
    labels_ny: np.ndarray | None = None
    p_ny: np.ndarray | None = None

    @property
    def right_n(self) -> np.ndarray:
        """[n] bool: the most probable class is the true one."""
        return self.rank_n == 0


@dataclass(frozen=True)
class ClipPredictions:
    """The predictions for all clips of a split, in its order.

    Attributes:
      sets: {label set: predictions}.
      group_n: [n] int64, equal = cut from the same source.
      silenced: {modality: the predictions without it}.
    """

    sets: Mapping[str, SetPredictions]
    group_n: np.ndarray
    silenced: Mapping[str, ClipPredictions] = field(default_factory=dict)

    def right_n(self, name: str) -> np.ndarray:
        """[n] bool: right in one label set; for any other name (the joint report's) in all."""
        if name in self.sets:
            return self.sets[name].right_n
        return np.all([one.right_n for one in self.sets.values()], axis=0)

    def within_n(self, name: str, k: int) -> np.ndarray:
        """[n] bool: the true class, or combination of classes, is among the k most probable ones.

        Args:
          name: of a label set; any other (the joint report's) is all of them.
          k: at most 5.
        """
        if name in self.sets:
            return self.sets[name].rank_n < k
        sets = list(self.sets.values())
        best, scores = [one.top_nk for one in sets], [one.p_nk for one in sets]
        # The number of classes only orders equal scores by index; any upper bound does.
        size = 1 + max(int(one.top_nk.max()) for one in sets)
        classes_nkl, _ = combine_best(best, scores, [size] * len(sets), k)
        true_n1l = np.stack([one.label_n for one in sets], axis=-1)[:, None]
        return (classes_nkl == true_n1l).all(axis=-1).any(axis=-1)


class Keeper:
    """Keeps the predictions of the clips that a process judges, in their order.

    Args:
      all_classes: keep the probabilities of all classes; None = of multi-label sets.
    """

    def __init__(self, *, all_classes: bool | None = None) -> None:
        self._all_classes = all_classes
        self._rows: list[np.ndarray] = []
        self._whole: dict[str, list[np.ndarray]] = {}

    def add(
        self,
        probabilities: Mapping[str, np.ndarray],
        labels: Mapping[str, np.ndarray],
        group_b: np.ndarray,
    ) -> None:
        """Takes real examples, one row a clip.

        Args:
          probabilities: {label set: [b, y] float}.
          labels: {label set: [b] int, or [b, y] of 0 and 1}.
          group_b: [b] int of the source.
        """
        columns = [np.asarray(group_b, np.int64)[:, None]]
        for name, p_by in probabilities.items():
            p_by, label_b = np.asarray(p_by, np.float32), np.asarray(labels[name], np.int64)
            if self._keeps_all(label_b.ndim > 1):
                self._whole.setdefault(name, []).append(p_by)
            if label_b.ndim > 1:
                columns.append(np.packbits(label_b > 0, axis=1).astype(np.int64))
                label_b = _likeliest(p_by, label_b)
            top_bk = np.argsort(-p_by, axis=1, kind="stable")[:, :TOP_K]
            true_b1 = np.take_along_axis(p_by, label_b[:, None], axis=1)
            columns += [
                label_b[:, None],
                np.where(label_b < 0, p_by.shape[1], class_ranks(p_by, label_b))[:, None],
                _as_integers(true_b1),
                top_bk,
                _as_integers(np.take_along_axis(p_by, top_bk, axis=1)),
            ]
        self._rows.append(np.concatenate(columns, axis=1))

    def gather(
        self,
        label_sets: Mapping[str, Sequence[str]],
        *,
        count: int,
        index: int = 0,
        processes: int = 1,
        total: Callable[[np.ndarray], np.ndarray] = np.asarray,
        multi_label: Collection[str] = (),
    ) -> ClipPredictions:
        """Puts the parts of all processes together.

        Args:
          label_sets: {label set: class names}.
          count: clips of all processes.
          index: number of this process, which judged clips index, index + processes, ...
          processes: how many share the split.
          total: the sum of integers over them.
          multi_label: the label sets whose labels are [b, y] of 0 and 1.

        Returns:
          The same in every process.
        """
        widths = {name: 3 + 2 * min(TOP_K, len(label_sets[name])) for name in label_sets}
        packed = {
            name: -(-len(label_sets[name]) // 8) for name in label_sets if name in multi_label
        }
        width = 1 + sum(widths.values()) + sum(packed.values())
        everything = np.zeros((count, width), np.int64)
        if self._rows:
            mine = np.concatenate(self._rows)
            everything[index::processes][: len(mine)] = mine
        everything = total(everything)
        sets, start = {}, 1
        for name, width in widths.items():
            labels_ny = None
            if name in packed:
                bits = everything[:, start : start + packed[name]].astype(np.uint8)
                labels_ny = np.unpackbits(bits, axis=1, count=len(label_sets[name]))
                start += packed[name]
            part, start = everything[:, start : start + width], start + width
            k = (width - 3) // 2
            sets[name] = SetPredictions(
                part[:, 0],
                part[:, 1],
                _as_floats(part[:, 2]),
                part[:, 3 : 3 + k],
                _as_floats(part[:, 3 + k :]),
                labels_ny,
                self._all_of(name, len(label_sets[name]), count, index, processes, total)
                if self._keeps_all(name in packed)
                else None,
            )
        return ClipPredictions(sets, everything[:, 0])

    def _keeps_all(self, is_multi_label: bool) -> bool:
        return is_multi_label if self._all_classes is None else self._all_classes

    def _all_of(
        self,
        name: str,
        width: int,
        count: int,
        index: int,
        processes: int,
        total: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        """[count, width] float32 probabilities of a label set, of all processes."""
        mine = np.concatenate(self._whole.get(name) or [np.zeros((0, width), np.float32)])
        if processes == 1:
            return mine
        bits = np.zeros((count, width), np.int64)
        bits[index::processes][: len(mine)] = _as_integers(mine)
        return _as_floats(total(bits))


def _likeliest(p_by: np.ndarray, label_by: np.ndarray) -> np.ndarray:
    """[b] the most probable class of those that apply; -1 where none does."""
    best_b = np.where(label_by > 0, p_by, -np.inf).argmax(axis=1)
    return np.where(label_by.any(axis=1), best_b, -1)


def _as_integers(values: np.ndarray) -> np.ndarray:
    """The bits of float32 numbers, which sums over processes leave as they are."""
    return np.ascontiguousarray(values, np.float32).view(np.int32).astype(np.int64)


def _as_floats(bits: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(bits).astype(np.int32).view(np.float32)


def rows(
    found: ClipPredictions,
    label_sets: Mapping[str, Sequence[str]],
    names: Sequence[Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """A row of each clip for a table.

    Args:
      found: what was predicted.
      label_sets: {label set: class names}.
      names: what identifies each clip: {"id", "source", ...}.

    Yields:
      `names` of the clip, and for each label set the columns set, set_predicted, set_right,
      set_p_true (of the true class), set_top (names, best first, with their probabilities). Of a
      multi-label set the first has all names, and the true class is the most probable of them.
    """
    for i, row in enumerate(names):
        made = dict(row)
        for name, one in found.sets.items():
            classes = label_sets[name]
            best = zip(one.top_nk[i], one.p_nk[i], strict=True)
            made |= {
                name: classes[one.label_n[i]]
                if one.labels_ny is None
                else join_names([classes[y] for y in np.flatnonzero(one.labels_ny[i]).tolist()]),
                f"{name}_predicted": classes[one.top_nk[i, 0]],
                f"{name}_right": bool(one.rank_n[i] == 0),
                f"{name}_p_true": round(float(one.true_n[i]), 6) if one.label_n[i] >= 0 else None,
                f"{name}_top": "; ".join(f"{classes[y]} {p:.4f}" for y, p in best),
            }
        yield made


def write_clips(path: Path, table: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as CSV, or as Parquet where the file's name ends so.

    Args:
      path: .csv or .parquet; an older file is replaced.
      table: of `rows`, at least one.

    Raises:
      UserError: the file cannot be written.
    """
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        with replacing_path(path) as partial:
            parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in table]), partial)
        return
    with replacing(path) as file:
        writer = CellWriter(file)
        writer.row(table[0])
        writer.rows(row.values() for row in table)
