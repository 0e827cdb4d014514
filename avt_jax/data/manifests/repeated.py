"""Rows of a manifest that name the same clip: joined where sets are multi-label, else reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from avt_jax.data.manifests.clips import Columns
from avt_jax.data.manifests.label_columns import OneClass, SeveralClasses

Readers = Mapping[str, OneClass | SeveralClasses]


def same_clips(columns: Columns) -> Iterator[list[int]]:
    """Groups of two or more rows, each ascending, that name one source and one span."""
    number = len(columns.sources)
    hash_n = np.fromiter(map(hash, columns.sources), np.int64, number)
    start_n = np.frombuffer(columns.starts, np.float64)
    end_n = np.nan_to_num(np.frombuffer(columns.ends, np.float64), nan=-1.0)
    order = np.lexsort((np.arange(number), end_n, start_n, hash_n))
    same = np.ones(max(0, number - 1), bool)
    for key_n in (hash_n, start_n, end_n):
        same &= key_n[order][1:] == key_n[order][:-1]
    group: list[int] = []
    for place in np.flatnonzero(same).tolist():
        one, two = int(order[place]), int(order[place + 1])
        if columns.sources[one] != columns.sources[two]:  # hashes may collide
            continue
        if group and group[-1] == one:
            group.append(two)
            continue
        if group:
            yield group
        group = [one, two]
    if group:
        yield group


def settle(columns: Columns, readers: Readers) -> list[str]:
    """Joins rows of one clip, and finds those that contradict each other.

    Rows of the same source, span and split become one clip where there is a multi-label set and
    they agree in the others: it has the classes of all of them.

    Args:
      columns: all rows; changed in place.
      readers: of each label set, in the order of `columns.labels`.

    Returns:
      A sentence for each single-label set with rows that contradict each other.
    """
    several = [isinstance(reader, SeveralClasses) for reader in readers.values()]
    wrong: dict[str, list[tuple[int, int]]] = {}
    lost: list[int] = []
    for group in same_clips(columns):
        alike: dict[tuple[int, ...], list[int]] = {}
        for row in group:
            codes = [c[row] for c, many in zip(columns.labels, several, strict=True) if not many]
            alike.setdefault((columns.splits[row], *codes), []).append(row)
        if len({key[1:] for key in alike}) > 1:
            _note_contradictions(columns, readers, group, wrong)
        if any(several):
            for rows in alike.values():
                _join(columns, readers, rows)
                lost += rows[1:]
    if lost:
        columns.leave_out(lost)
    return [_sentence(name, pairs) for name, pairs in wrong.items()]


def _join(columns: Columns, readers: Readers, rows: Sequence[int]) -> None:
    """Gives the first of some rows the classes of all."""
    for reader, codes in zip(readers.values(), columns.labels, strict=True):
        if isinstance(reader, SeveralClasses):
            codes[rows[0]] = reader.joined({codes[row] for row in rows})


def _note_contradictions(
    columns: Columns,
    readers: Readers,
    group: Sequence[int],
    wrong: dict[str, list[tuple[int, int]]],
) -> None:
    for (name, reader), codes in zip(readers.items(), columns.labels, strict=True):
        if isinstance(reader, OneClass):
            other = next((row for row in group if codes[row] != codes[group[0]]), None)
            if other is not None:
                lines = (columns.lines[group[0]], columns.lines[other])
                wrong.setdefault(name, []).append(lines)


def _sentence(name: str, pairs: Sequence[tuple[int, int]]) -> str:
    pairs = sorted(pairs)
    more = f" (and {len(pairs) - 1} clips more)" if len(pairs) > 1 else ""
    return (
        f"lines {pairs[0][0]} and {pairs[0][1]} give one clip two classes of the set {name!r}"
        f"{more}; delete one of them, or, if both are right, give --multi-label {name} "
        "(docs/multi_label.md)"
    )
