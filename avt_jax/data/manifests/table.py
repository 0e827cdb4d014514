"""Tables as text: what spreadsheets and people write, and what `avt manifest` writes."""

from __future__ import annotations

import contextlib
import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from avt_jax.data.manifests.fields import written_path
from avt_jax.errors import UserError
from avt_jax.host.output.cells import CellWriter, cell_text

MAX_BYTES = 2**30
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
_HEAD_BYTES = 4096
_SEP = re.compile(r"sep=(.)\s*", re.IGNORECASE)


@contextlib.contextmanager
def open_text(path: Path, what: str) -> Iterator[IO[str]]:
    """Opens a text file that people made: UTF-8, or UTF-16 with its mark as Excel writes it.

    Args:
      path: the file.
      what: what messages call it.

    Yields:
      The file; line ends are left as they are, for the csv module.

    Raises:
      UserError: no such file, too large, or text in another encoding, also while it is read.
    """
    if not path.exists():
        raise UserError(f"{what} {path} does not exist; check the path.")
    if not path.is_file():
        raise UserError(f"{what} {path} is not a file.")
    encoding = ""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{what} {path} is larger than 1 GiB; split it.")
        encoding = _encoding(path, what)
        with open(path, encoding=encoding, newline="") as file:
            yield file
    except UnicodeError as error:
        raise UserError(_not_text(path, what, encoding)) from error
    except OSError as error:
        raise UserError(f"cannot read {what} {path}: {error.strerror}.") from error


def _encoding(path: Path, what: str) -> str:
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if head[1:2] == b"\0" or head[:1] == b"\0":
        raise UserError(
            f"{what} {path} looks like UTF-16 without its mark; save it as UTF-8 (in Excel: CSV "
            "UTF-8)."
        )
    # Spreadsheet programs put a byte order mark in front, which must not become part of the first
    # column's name.
    return "utf-8-sig"


def _not_text(path: Path, what: str, encoding: str) -> str:
    if encoding == "utf-16":
        return f"{what} {path} begins as UTF-16 but is not UTF-16 text; save it as UTF-8."
    try:
        path.read_bytes().decode()
        where = ""
    except (UnicodeDecodeError, OSError) as error:
        where = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
    return (
        f"{what} {path} is not UTF-8 text{where}, perhaps Windows-1252; save it as UTF-8 (in "
        "Excel: CSV UTF-8)."
    )


class Rows:
    """The rows of a table with a header, one after another.

    Attributes:
      header: names of the columns.
      delimiter: what stands between two fields.
    """

    def __init__(self, file: IO[str], path: Path, what: str, known: Iterable[str]):
        """Reads the header: the first line that is not blank.

        Args:
          file: from `open_text`.
          path: of it, for messages.
          what: what messages call it.
          known: names of columns, by which the delimiter is found out.

        Raises:
          UserError: the file is empty.
        """
        self._path, self._what = path, what
        self._before = 0
        line, delimiter = "", ""
        for line in file:
            self._before += 1
            if sep := _SEP.fullmatch(line.strip('"\r\n')):
                # Excel's own first line.
                delimiter = sep[1]
            elif line.strip(' ,;\t\r\n"'):
                break
            line = ""
        if not line:
            raise UserError(f"{what} {path} is empty; its first line names the columns.")
        self.delimiter = delimiter or _find_delimiter(line, set(known))
        self._reader = csv.reader(
            itertools.chain([line], file), delimiter=self.delimiter, strict=True
        )
        with self._named_errors():
            self.header = [cell_text(name.strip()) for name in next(self._reader)]

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Yields the line number and the stripped fields of every line that is not blank.

        Raises:
          UserError: not CSV, or a line with another number of fields.
        """
        number = len(self.header)
        first = self._before - 1
        with self._named_errors():
            # A quoted field may span lines: a row's number is that of its first line.
            line = first + self._reader.line_num + 1
            for fields in self._reader:
                stripped = [
                    cell_text(text) if text[:1] == "'" else text
                    for field in fields
                    for text in (field.strip(),)
                ]
                if len(stripped) == number and any(stripped):
                    yield line, stripped
                elif any(stripped):
                    delimiter = DELIMITERS.get(self.delimiter, repr(self.delimiter))
                    raise UserError(
                        f"{self._what} {self._path}, line {line}: {len(fields)} fields, but the "
                        f"header has {number}; a field with a {delimiter} needs quotes."
                    )
                line = first + self._reader.line_num + 1

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except csv.Error as error:
            line = self._before - 1 + self._reader.line_num
            raise UserError(f"{self._what} {self._path}, line {line}: {error}.") from error


def _find_delimiter(line: str, known: set[str]) -> str:
    """The delimiter that makes most known columns of a header."""

    def score(delimiter: str) -> int:
        names = [name.strip().strip('"').strip() for name in line.strip().split(delimiter)]
        return sum(name in known or name.startswith(("label_", "labels")) for name in names)

    return max(DELIMITERS, key=score)


def write_rows(
    file: IO[str], columns: Sequence[str], rows: Iterable[Mapping[str, str] | Sequence[str]]
) -> None:
    """Writes a manifest that `read_manifest` reads back.

    Args:
      file: opened with newline="".
      columns: names, of which one is "path".
      rows: the fields in this order, or by column.
    """
    writer = CellWriter(file)
    writer.row(columns)
    place = columns.index("path")
    for row in rows:
        fields = [row[name] for name in columns] if isinstance(row, Mapping) else list(row)
        fields[place] = written_path(fields[place])
        writer.row(fields)
