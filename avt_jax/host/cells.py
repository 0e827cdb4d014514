"""Text in the cells of a CSV, which people open in a spreadsheet."""

from __future__ import annotations

# Excel, LibreOffice and Google Sheets compute what begins so. Source: OWASP, CSV Injection.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def plain_cell(text: str) -> str:
    """A text that no spreadsheet computes: an apostrophe goes before what looks like a formula.

    Numbers stay as they are.
    """
    if not text.startswith(_FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
