"""Lines for a terminal or a log: what a file or a label says must not control either.

Everything that avt_jax prints goes through here; `tests/test_imports.py` finds what does not.
"""

from __future__ import annotations

import sys
import unicodedata
from typing import IO

# Control characters, bytes that are no text, separators of lines and of paragraphs.
_CONTROLS = frozenset(("Cc", "Cs", "Zl", "Zp"))
# They turn the order of a whole line around; source: CVE-2021-42574 ("Trojan Source").
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def without_controls(text: str) -> str:
    """The text with control characters written as in Python, such as \\n or \\x1b.

    Spaces of all widths, joined emoji and soft hyphens stay: names of files have them.
    """
    if text.isprintable():
        return text
    return "".join(_escape(c) if unicodedata.category(c) in _CONTROLS else c for c in text)


def printable(text: str) -> str:
    """One line that can be printed as it is."""
    if text.isprintable():
        return text
    return "".join(_escape(c) if c in _TURNS else c for c in without_controls(text))


def printable_lines(text: str) -> str:
    """Several lines that can be printed as they are."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def show(text: object = "", *, file: IO[str] | None = None, flush: bool = False) -> None:
    """Prints a text; its lines stay lines, other control characters do not come through.

    Args:
      text: what to print.
      file: where to; None = stdout.
      flush: at once.
    """
    print(printable_lines(str(text)), file=sys.stdout if file is None else file, flush=flush)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
