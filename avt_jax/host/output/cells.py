"""Text in the cells of a CSV, which people open in a spreadsheet."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import IO, Any

# Excel, LibreOffice and Google Sheets compute what begins so. Source: OWASP, CSV Injection. What
# already has apostrophes before that gets another one, or it could not be told from what has ours.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_FIRST = frozenset("'=+-@\t\r\n")
_OURS = re.compile(r"'+[=+\-@\t\r\n]")


def plain_cell(text: str) -> str:
    """A text that no spreadsheet computes: an apostrophe goes before what looks like a formula.

    Numbers stay as they are.
    """
    if not _FORMULA.match(text):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def cell_text(cell: str) -> str:
    """The text that `plain_cell` made a cell of."""
    return cell[1:] if _OURS.match(cell) else cell


class CellWriter:
    """A `csv.writer` whose texts no spreadsheet computes."""

    def __init__(self, file: IO[str], *, delimiter: str = ",", line_end: str = "\r\n"):
        """Starts a table.

        Args:
          file: opened with newline="".
          delimiter: between two cells.
          line_end: behind each row.
        """
        self._writer = csv.writer(file, delimiter=delimiter, lineterminator=line_end)

    def row(self, cells: Iterable[Any]) -> None:
        """Writes a row; cells that are no texts as `csv.writer` does."""
        # Most cells need no closer look, and tables may have millions.
        self._writer.writerow(
            [plain_cell(c) if isinstance(c, str) and c[:1] in _FIRST else c for c in cells]
        )

    def rows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Writes rows."""
        for cells in rows:
            self.row(cells)
