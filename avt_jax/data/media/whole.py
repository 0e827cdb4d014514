"""Whether a file is proven to be whole by the sizes that its outermost parts state."""

from __future__ import annotations

import os
from typing import BinaryIO

# A file of more outermost parts is not looked at any further: it may be a recording in fragments.
_MAX_PARTS = 64
_MATROSKA_SEGMENT = 0x18538067
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
# A recording in fragments does not say how many there are.
_FRAGMENT = b"moof"


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Whether nothing is missing at the end of an mp4, mov, Matroska, WebM, AVI or ASF file.

    Args:
      path: a local file.

    Returns:
      True if its parts fill it exactly; False if they do not, or do not say.
    """
    num_bytes = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(8)
        file.seek(0)
        if head.startswith(b"\x1aE\xdf\xa3"):
            next_part = _matroska_part
        elif head.startswith(b"RIFF"):
            next_part = _riff_part
        elif head == _ASF_HEADER[:8]:
            next_part = _asf_part
        else:
            next_part = _iso_part
        for _ in range(_MAX_PARTS):
            part_bytes = next_part(file)
            if part_bytes is None or file.tell() + part_bytes > num_bytes:
                return False
            if file.seek(part_bytes, os.SEEK_CUR) == num_bytes:
                return True
    return False


def _iso_part(file: BinaryIO) -> int | None:
    """Moves behind the head of a box of an mp4; how long the rest is, None if it does not say."""
    head = file.read(8)
    if len(head) < 8 or head[4:] == _FRAGMENT:
        return None
    size, num_read = int.from_bytes(head[:4]), 8
    if size == 1:
        size, num_read = int.from_bytes(file.read(8)), 16
    return size - num_read if size >= num_read else None


def _riff_part(file: BinaryIO) -> int | None:
    head = file.read(8)
    if len(head) < 8 or head[:4] != b"RIFF":
        return None
    size = int.from_bytes(head[4:], "little")
    return size + size % 2


def _asf_part(file: BinaryIO) -> int | None:
    head = file.read(24)
    size = int.from_bytes(head[16:], "little")
    return size - 24 if size >= 24 else None


def _matroska_part(file: BinaryIO) -> int | None:
    number, size = _matroska_number(file, keep_marker=True), _matroska_number(file)
    # Only what is certain: the header, the one segment, and padding.
    return size if number in (0x1A45DFA3, _MATROSKA_SEGMENT, 0xEC) else None


def _matroska_number(file: BinaryIO, *, keep_marker: bool = False) -> int | None:
    """A number of Matroska's, whose first bit says how many bytes it has; None: unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    num_bits = 7 * (9 - first[0].bit_length())
    value = int.from_bytes(first + file.read(8 - first[0].bit_length()))
    if keep_marker:
        return value
    value &= (1 << num_bits) - 1
    return None if value == (1 << num_bits) - 1 else value
