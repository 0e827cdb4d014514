"""Tables on the terminal: one style for all commands, and names from outside as they are.

File names, labels and messages come from the user's data: nothing of them is taken for markup, and
no control character reaches the terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from avt_jax.host.output.rich_console import plain_console
from avt_jax.host.output.terminal import printable

# As wide as the tables need, where the output is no terminal.
_FILE_WIDTH = 120


def plain(text: str) -> Text:
    """A text as it is, for a cell or a line."""
    return Text(printable(text))


def new_console() -> Console:
    """Where a command prints its tables: stdout; nothing is taken for markup, no colours."""
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _FILE_WIDTH
    return plain_console(width=wide)


class PlainTable(Table):
    """A table in the commands' style: a title on the left, a line below the head, numbers right.

    Args:
      title: above it; "" for none.
      columns: their names.
      left: numbers of the columns that hold text; the others hold numbers.
      footer: the last row, below a line; () for none.
    """

    def __init__(
        self,
        title: str,
        *columns: str,
        left: Collection[int] = (0,),
        footer: Collection[str] = (),
    ):
        super().__init__(
            title=plain(title) if title else None,
            box=SIMPLE_HEAD,
            title_justify="left",
            caption_justify="left",
            show_footer=bool(footer),
        )
        for number, (name, end) in enumerate(zip(columns, footer or columns, strict=True)):
            side = "left" if number in left else "right"
            self.add_column(plain(name), plain(end), justify=side)  # type: ignore[arg-type]

    def row(self, *cells: str) -> None:
        """Adds a row."""
        self.add_row(*map(plain, cells))
