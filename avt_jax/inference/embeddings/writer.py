"""An index is written as its rows come, and appears when it is complete."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from avt_jax.errors import UserError
from avt_jax.host.new_files import check_new, replacing_path
from avt_jax.inference.embeddings.vectors import FLAGS, NUMBERS, TEXT, About, Rows, label_column

_GROUP_ROWS = 4096
_ADVICE = "make room or mend it, and give the same command again"


class _Format(Protocol):
    """How rows are stored."""

    def add(self, rows: Rows) -> None:
        """Takes rows."""

    def finish(self) -> None:
        """Writes what is left."""


class Writer:
    """An index that is being written.

    Attributes:
      count: rows so far.
    """

    def __init__(self, form: _Format):
        """Takes where they go."""
        self.count = 0
        self._form = form

    def add(self, rows: Rows) -> None:
        """Writes rows; the columns are those of the first.

        Raises:
          UserError: they cannot be written.
        """
        try:
            self._form.add(rows)
        except OSError as error:
            raise UserError(f"cannot write the index ({error}); {_ADVICE}.") from error
        self.count += len(rows)


def check_index(path: Path) -> None:
    """Raises UserError for a name that says no format, that is taken, or where no file can be."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"--out {path}: an index ends in {' or '.join(FORMATS)}.")
    check_new([path])


@contextlib.contextmanager
def new_index(path: Path, about: About) -> Iterator[Writer]:
    """Opens an index that becomes `path` when the body has ended; after an error nothing is there.

    Args:
      path: ends in .parquet or .npz, and is not there.
      about: what makes it.

    Yields:
      The `Writer`.

    Raises:
      UserError: the name is none for an index, there are no rows, or they cannot be written.
    """
    check_index(path)
    with contextlib.ExitStack() as stack:
        partial = stack.enter_context(replacing_path(path, advice=_ADVICE))
        form = stack.enter_context(FORMATS[path.suffix.lower()](partial, about))
        writer = Writer(form)
        yield writer
        if not writer.count:
            raise UserError(f"nothing was embedded, so {path} was not written; give other files.")
        form.finish()


class _Parquet(contextlib.AbstractContextManager["_Parquet"]):
    """Groups of rows; vectors are lists of one length, stored as they are."""

    def __init__(self, path: Path, about: About):
        self._path, self._about = path, about
        self._writer: Any = None
        self._tables: list[Any] = []

    def add(self, rows: Rows) -> None:
        import pyarrow

        columns: dict[str, Any] = {name: pyarrow.array(rows.text[name], "string") for name in TEXT}
        columns |= {name: pyarrow.array(getattr(rows, name), "double") for name in NUMBERS}
        columns |= {name: pyarrow.array(getattr(rows, name), "bool") for name in FLAGS}
        for name, classes in rows.labels.items():
            columns[label_column(name)] = pyarrow.array(classes, "string")
        for name, vector_nd in rows.vectors.items():
            flat = pyarrow.array(vector_nd.astype(np.float32).ravel())
            width = vector_nd.shape[1]
            columns[name] = pyarrow.FixedSizeListArray.from_arrays(flat, width)
        self._tables.append(pyarrow.table(columns))
        if sum(table.num_rows for table in self._tables) >= _GROUP_ROWS:
            self._write()

    def finish(self) -> None:
        self._write()
        if self._writer is not None:
            self._writer.close()

    def _write(self) -> None:
        import pyarrow
        from pyarrow import parquet

        if not self._tables:
            return
        table = pyarrow.concat_tables(self._tables)
        self._tables.clear()
        if self._writer is None:
            schema = table.schema.with_metadata({"avt_jax": self._about.to_json()})
            # Vectors do not become smaller, and a reader can tell from the file's size what is in.
            self._writer = parquet.ParquetWriter(
                self._path, schema, compression="none", use_dictionary=False
            )
        self._writer.write_table(table)

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()


class _Npz(contextlib.AbstractContextManager["_Npz"]):
    """One array a column. Vectors wait in files of their own, as the number of rows comes first."""

    def __init__(self, path: Path, about: About):
        self._path, self._about = path, about
        self._columns: dict[str, list[Any]] = {}
        self._widths: dict[str, int] = {}
        self._vectors: dict[str, IO[bytes]] = {}
        self._stack = contextlib.ExitStack()

    def add(self, rows: Rows) -> None:
        columns: dict[str, Sequence[Any]] = {name: rows.text[name] for name in TEXT}
        columns |= {name: getattr(rows, name) for name in (*NUMBERS, *FLAGS)}
        columns |= {label_column(name): classes for name, classes in rows.labels.items()}
        for name, column in columns.items():
            self._columns.setdefault(name, []).extend(column)
        for name, vector_nd in rows.vectors.items():
            if name not in self._vectors:
                file = tempfile.TemporaryFile(dir=self._path.absolute().parent)
                self._vectors[name] = self._stack.enter_context(file)
                self._widths[name] = vector_nd.shape[1]
            self._vectors[name].write(np.ascontiguousarray(vector_nd, "<f4").tobytes())

    def finish(self) -> None:
        # Not compressed: a reader can tell from the file's size what is in.
        with zipfile.ZipFile(self._path, "w", zipfile.ZIP_STORED) as archive:
            arrays = {"about": np.array(self._about.to_json())}
            arrays |= {name: np.array(column) for name, column in self._columns.items()}
            for name, array in arrays.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, array, allow_pickle=False)
                archive.writestr(f"{name}.npy", content.getbuffer())
            count = len(self._columns["id"])
            for name, file in self._vectors.items():
                file.seek(0)
                shape = {"shape": (count, self._widths[name])}
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array_header_1_0(
                        entry, {"descr": "<f4", "fortran_order": False} | shape
                    )
                    shutil.copyfileobj(file, entry, 2**20)

    def __exit__(self, *error: object) -> None:
        self._stack.close()


FORMATS: dict[str, Callable[[Path, About], contextlib.AbstractContextManager[_Format]]] = {
    ".parquet": _Parquet,
    ".npz": _Npz,
}
