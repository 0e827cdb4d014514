"""What the outermost parts of a file say of its being whole, beyond what FFmpeg tells of them."""

from __future__ import annotations

import io
import os
import zlib
from typing import BinaryIO

# A file of more outermost parts is not looked at any further: it may be a recording in fragments.
_MAX_PARTS = 64
_MATROSKA_SEGMENT = 0x18538067
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# The properties stand near the start.
_ASF_HEAD_BYTES = 64 * 2**10
_TS_SYNC, _TS_PACKET_BYTES, _TS_HEAD_PACKETS = 0x47, 188, 2000
# An Ogg file of more bytes is judged by its last page.
_SMALL_OGG_BYTES = 32 * 2**20
_OGG, _OGG_PAGE_BYTES, _LAST_OF_STREAM = b"OggS", 27, 4
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_MAX_OGG_PAGE_BYTES = _OGG_PAGE_BYTES + 255 + 255 * 255
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


def asf_end_sec(path: str | os.PathLike[str]) -> float | None:
    """Where an ASF file ends by its header, which FFmpeg leaves out when bytes are missing.

    Returns:
      Seconds; None if it is not such a file or does not say.
    """
    with open(path, "rb") as file:
        head = file.read(_ASF_HEAD_BYTES)
    place = head.find(_ASF_PROPERTIES)
    if not head.startswith(_ASF_HEADER) or not 0 <= place <= len(head) - 92:
        return None
    # After identity, sizes and date: length in units of 100 ns, the time to send it, how much of
    # it in ms comes before second 0, flags.
    ticks = int.from_bytes(head[place + 64 : place + 72], "little")
    before_ms = int.from_bytes(head[place + 80 : place + 88], "little")
    is_live = head[place + 88] & 1
    end_sec = ticks / 1e7 - before_ms / 1e3
    return end_sec if end_sec > 0 and not is_live else None


def is_broken_ogg(path: str | os.PathLike[str]) -> bool:
    """Whether pages of an Ogg file are missing or damaged; it does not say how long it was.

    Args:
      path: a local Ogg file.

    Returns:
      True if a page does not follow the one before it, in the file or in its stream, or a stream
      does not come to its end.
    """
    num_bytes = os.path.getsize(path)
    with open(path, "rb") as file:
        if num_bytes > _SMALL_OGG_BYTES:
            file.seek(max(0, num_bytes - _MAX_OGG_PAGE_BYTES))
            tail = file.read()
            page = _ogg_page(io.BytesIO(tail[max(0, tail.rfind(_OGG)) :]))
            return page is None or not page[5] & _LAST_OF_STREAM
        numbers: dict[bytes, int] = {}  # of the next page of each stream that goes on
        while file.tell() < num_bytes:
            page = _ogg_page(file)
            if page is None:
                return True
            stream, number = page[14:18], int.from_bytes(page[18:22], "little")
            if numbers.get(stream, number) != number:
                return True
            numbers[stream] = number + 1
            if page[5] & _LAST_OF_STREAM:
                del numbers[stream]
        return bool(numbers)


def is_scrambled(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a transport stream whose pictures and sound are encrypted.

    FFmpeg finds no streams in one, and does not say why.
    """
    with open(path, "rb") as file:
        head = file.read(_TS_HEAD_PACKETS * _TS_PACKET_BYTES)
    packets = range(0, len(head) - _TS_PACKET_BYTES + 1, _TS_PACKET_BYTES)
    if not packets or any(head[place] != _TS_SYNC for place in packets):
        return False
    # The tables say what is in the stream, and are never encrypted; nor is what fills it up.
    own = [
        place for place in packets if 0x20 <= (head[place + 1] & 31) << 8 | head[place + 2] < 8191
    ]
    return 2 * sum(head[place + 3] >= 0x80 for place in own) > len(own)


def _ogg_page(file: BinaryIO) -> bytes | None:
    """The next page, if it is one and agrees with its own checksum."""
    head = file.read(_OGG_PAGE_BYTES)
    if len(head) < _OGG_PAGE_BYTES or head[:4] != _OGG:
        return None
    sizes = file.read(head[26])
    page = head + sizes + file.read(sum(sizes))
    if len(page) < len(head) + head[26] + sum(sizes):
        return None
    blank = page[:22] + bytes(4) + page[26:]
    # The polynomial is zlib's, but with the bits of each byte, and of the result, in other order.
    found = zlib.crc32(blank.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    stated = page[22:26].translate(_REVERSED_BITS)
    return page if found == int.from_bytes(stated) else None


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
