"""An index from its file. It may come from anywhere: what it claims is checked, nothing is run."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avt_jax.errors import UserError, reading
from avt_jax.inference.embeddings.vectors import (
    FLAGS,
    NAMES,
    NUMBERS,
    TEXT,
    About,
    Rows,
    label_column,
)

SUFFIXES = (".parquet", ".npz")


@dataclass(frozen=True)
class Index:
    """An index that was read.

    Attributes:
      path: of the file.
      about: what made it.
      rows: what is in it.
    """

    path: Path
    about: About
    rows: Rows


def read_index(path: Path) -> Index:
    """Reads an index that `avt embed` wrote.

    Raises:
      UserError: no such file, another one, or a damaged one.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} is no index of 'avt embed', which ends in .parquet or .npz.")
    if not path.is_file():
        raise UserError(f"{path} does not exist or is no file; make it with 'avt embed'.")
    with reading(path, "is damaged, or was not written by 'avt embed'", "make it anew"):
        about, columns = (_parquet if path.suffix.lower() == ".parquet" else _npz)(path)
        return Index(path, about, _checked(about, columns))


def _parquet(path: Path) -> tuple[About, dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        about = About.from_json((schema.metadata or {})[b"avt_jax"].decode())
        wanted = _wanted(about, schema.names)
        fields = [schema.field(name) for name in wanted]
        # Without this the file itself would decide how much memory is taken.
        values = sum(
            field.type.list_size if pyarrow.types.is_fixed_size_list(field.type) else 0
            for field in fields
        )
        if 4 * values * file.metadata.num_rows > path.stat().st_size:
            raise ValueError("it claims to hold more vectors than it has bytes")
        table = file.read(columns=wanted)
    columns: dict[str, Any] = {}
    for name in wanted:
        column = table.column(name).combine_chunks()
        if name in NAMES:
            if column.null_count or not pyarrow.types.is_fixed_size_list(column.type):
                raise ValueError(f"the column {name} holds no vectors of one length")
            columns[name] = column.flatten().to_numpy().reshape(len(column), -1)
        elif name in (*NUMBERS, *FLAGS):
            columns[name] = column.to_numpy(zero_copy_only=False)
        else:
            columns[name] = column.to_pylist()
    return about, columns


def _npz(path: Path) -> tuple[About, dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("it claims to hold more than it has bytes")
        if len({entry.filename for entry in entries}) != len(entries):
            raise ValueError("one name occurs twice")
        for entry in entries:
            _check_npy(archive, entry)
    with np.load(path, allow_pickle=False) as arrays:
        about = About.from_json(str(arrays["about"]))
        columns: dict[str, Any] = {name: arrays[name] for name in _wanted(about, arrays.files)}
    for name in columns:
        if name not in (*NUMBERS, *FLAGS, *NAMES):
            columns[name] = columns[name].tolist()
    return about, columns


def _check_npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """NumPy takes the memory that a header claims, and only then looks for the data."""
    with archive.open(entry) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{entry.filename} is of another version")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != entry.file_size - stream.tell():
            raise ValueError(f"{entry.filename} claims the shape {shape}")


def _wanted(about: About, there: Sequence[str]) -> list[str]:
    names = [*TEXT, *NUMBERS, *FLAGS, *(label_column(name) for name in about.label_sets)]
    names += [name for name in NAMES if name in there]
    if missing := [name for name in names if name not in there]:
        raise ValueError(f"the column {missing[0]} is missing")
    return names


def _checked(about: About, columns: dict[str, Any]) -> Rows:
    count = len(columns["id"])
    vectors = {name: columns[name] for name in NAMES if name in columns}
    if not vectors:
        raise ValueError("it has no vectors")
    for name, column in columns.items():
        if len(column) != count:
            raise ValueError(f"the column {name} has {len(column)} entries, id has {count}")
    labels = {name: columns[label_column(name)] for name in about.label_sets}
    for texts in (*(columns[name] for name in TEXT), *labels.values()):
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a name is no text")
    start, end = (np.asarray(columns[name], np.float64) for name in NUMBERS)
    video, audio = (np.asarray(columns[name]) for name in FLAGS)
    if video.dtype != bool or audio.dtype != bool:
        raise TypeError("has_video or has_audio is not bool")
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        raise ValueError("a time is not finite")
    rows = Rows({name: columns[name] for name in TEXT}, start, end, video, audio, labels, vectors)
    for name, vector_nd in vectors.items():
        _check_vectors(name, vector_nd, rows.has(name))
    return rows


def _check_vectors(name: str, vector_nd: np.ndarray, has_n: np.ndarray) -> None:
    if vector_nd.dtype != np.float32 or vector_nd.ndim != 2 or not vector_nd.shape[1]:
        raise TypeError(f"{name} is no array [n, d] of float32")
    square_n = np.einsum("nd,nd->n", vector_nd, vector_nd)
    # Of a row that does not have the modality they are zeros, and are not looked at.
    if not (np.abs(square_n[has_n] - 1) < 1e-3).all() or not np.isfinite(square_n).all():
        raise ValueError(f"a vector of {name} is not of length 1")
