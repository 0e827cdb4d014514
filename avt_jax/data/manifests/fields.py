"""What the fields of a manifest say: labels, times, splits, paths."""

from __future__ import annotations

import math
import re
import unicodedata

from avt_jax.data.records import SPLITS
from avt_jax.errors import nearest
from avt_jax.host.output.terminal import without_controls

# No "1_0", no "infinity", no digits of other scripts, which Python would all take.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_CLOCK = re.compile(r"([0-9]{1,3}):([0-5]?[0-9]):([0-5]?[0-9](?:\.[0-9]*)?)", re.ASCII)
_MAX_SEC = 1e8
_FEW_DIGITS = 8
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {name: split for split in SPLITS for name in _SPLIT_NAMES[split]}


def clean_label(text: str) -> str:
    """A class name as it is stored: in Unicode's form NFC, without spaces around, in one line."""
    if text.isascii() and text.isprintable():
        return text.strip()
    return unicodedata.normalize("NFC", without_controls(text.strip()))


def split_named(text: str) -> str | None:
    """The split that is called so, in capitals or not: "valid", "validation" and "dev" are "val".

    None where it is none.
    """
    return _SPLIT_OF.get(text.strip().casefold())


def near_split(text: str) -> str:
    """ " (did you mean 'val'?)" for what is no split, but nearly is; else ""."""
    return nearest(text.strip().casefold(), _SPLIT_OF)


def parse_seconds(text: str, column: str, *, decimal_comma: bool = False) -> float:
    """Reads seconds ("12", "12.5") or a time stamp ("0:01:02.50").

    Args:
      text: without spaces around.
      column: for the message.
      decimal_comma: "12,5" is 12.5.

    Raises:
      ValueError: it is neither, negative, or beyond every sensible length.
    """
    number = text.replace(",", ".") if decimal_comma else text
    if number.isdigit() and number.isascii() and len(number) < _FEW_DIGITS:
        return float(number)  # what most are, and a manifest may have millions
    if _NUMBER.fullmatch(number):
        seconds = float(number)
    elif clock := _CLOCK.fullmatch(number):
        seconds = 3600 * int(clock[1]) + 60 * int(clock[2]) + float(clock[3])
    else:
        raise ValueError(
            f"{column} {text!r} is neither a number of seconds (62.5) nor H:MM:SS (0:01:02.5)"
        )
    if not (math.isfinite(seconds) and 0 <= seconds <= _MAX_SEC):
        raise ValueError(f"{column} {text!r} is not a sensible number of seconds, 0 or more")
    return seconds


def written_path(path: str) -> str:
    """A path as it goes into a manifest, whose readers leave out the spaces around a field."""
    if path[:1].isspace():
        path = f"./{path}"
    return f"{path}/" if path[-1:].isspace() else path


def read_path(text: str) -> str:
    """The path that `written_path` wrote, without what means nothing in it ("./", "//").

    Raises:
      ValueError: there is none, or it holds "..".
    """
    if not text:
        raise ValueError("path is empty")
    if not ("/." in text or "//" in text or text[0] == "." or text[-1] == "/"):
        return text
    is_absolute = text.startswith("/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(
            f"path {text!r} contains '..'; write it below the manifest's folder, or in full"
        )
    return "/" * is_absolute + "/".join(parts) if parts or is_absolute else "."
