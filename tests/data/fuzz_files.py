"""Damages files in seeded ways; also what the fuzz test runs in other processes."""

from __future__ import annotations

import faulthandler
import functools
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import simplejpeg

from avt_jax.audio.melspec import num_fbank_frames
from avt_jax.data.extraction.clip_record import SAMPLE_RATE_HZ, ExtractConfig, make_record
from avt_jax.data.media.container import DecodeError
from avt_jax.data.records import FLAG_CODES, NO_VIDEO

CONFIG = ExtractConfig(frame_rate_hz=8, short_side_px=32)
# Enough for a busy machine: an idle one needs some milliseconds.
LIMIT_SEC = 30.0


def damaged(data: bytes, other: bytes, seed: int) -> bytes:
    """One of the ways in which files break, chosen and placed by the seed.

    Args:
      data: a good file.
      other: another good file, for splices.
      seed: decides everything.

    Returns:
      The damaged file.
    """
    rng = np.random.default_rng(seed)
    out = bytearray(data)
    kind = seed % len(_DAMAGES)
    for _ in range(1 + int(rng.integers(3))):
        out = _DAMAGES[kind](out, other, rng)
    return bytes(out)


def _span(data: bytearray, rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(len(data)))
    return start, start + 1 + int(rng.integers(1, max(2, len(data) // 8)))


def _flip_bits(data, other, rng):
    for position in rng.integers(0, len(data), int(rng.integers(1, 40))):
        data[position] ^= 1 << int(rng.integers(8))
    return data


def _flip_header_bits(data, other, rng):
    """Formats keep their tables at the start or at the end."""
    for _ in range(int(rng.integers(1, 6))):
        near = int(rng.integers(min(1500, len(data))))
        data[near if rng.integers(2) else -1 - near] ^= 1 << int(rng.integers(8))
    return data


def _set_large_numbers(data, other, rng):
    """Sizes, counts and times of an absurd value."""
    value = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f"]
    near = int(rng.integers(min(1500, len(data))))
    position = near if rng.integers(2) else max(0, len(data) - 4 - near)
    data[position : position + 4] = value[int(rng.integers(4))]
    return data


def _cut_end(data, other, rng):
    return data[: max(1, int(rng.integers(len(data))))]


def _cut_out(data, other, rng):
    start, end = _span(data, rng)
    return data[:start] + data[end:] or data[:1]


def _overwrite(data, other, rng):
    start, end = _span(data, rng)
    end = min(end, len(data))
    data[start:end] = bytes(end - start) if rng.integers(2) else rng.bytes(end - start)
    return data


def _repeat(data, other, rng):
    start, end = _span(data, rng)
    return data[:end] + data[start:]


def _splice(data, other, rng):
    start, end = _span(data, rng)
    place = int(rng.integers(len(other)))
    return data[:start] + other[place : place + end - start] + data[end:]


_DAMAGES = (
    _flip_bits,
    _flip_header_bits,
    _set_large_numbers,
    _cut_end,
    _cut_out,
    _overwrite,
    _repeat,
    _splice,
)


def try_damaged(item: tuple[str, str, int]) -> tuple[str, str, float]:
    """Makes a record of a damaged file, as an extraction does.

    Args:
      item: (good file, other good file, seed). The seed also decides which span is asked for.

    Returns:
      (outcome, detail, seconds). Outcome: "record", a reason code, "wrong" for a record that
      contradicts itself, or "unexpected" for an error without a reason.
    """
    good, other, seed = item
    span_sec = [(None, None), (0.0, 1.0), (0.4, 0.9), (0.2, 5.0)][seed // len(_DAMAGES) % 4]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(good).name
        path.write_bytes(damaged(Path(good).read_bytes(), Path(other).read_bytes(), seed))
        # Beyond the limit this ends the process, even inside a codec.
        faulthandler.dump_traceback_later(LIMIT_SEC, exit=True, file=sys.__stderr__)
        try:
            record = make_record(path, *span_sec, config=CONFIG, id="x", source="x")
            detail = contradiction(record, CONFIG)
            # Without a word the whole file may not become much shorter or longer.
            lasts_sec = record["end_sec"] - record["start_sec"]
            is_other = abs(lasts_sec - _length_sec(good)) > 0.3
            if span_sec == (None, None) and is_other and not record["flags"]:
                detail = detail or f"{lasts_sec} s in place of {_length_sec(good)}, and no flag"
            outcome = "wrong" if detail else "record"
            detail = detail or " ".join(record["flags"])
        except DecodeError as error:
            outcome, detail = error.reason_code, error.message
        except Exception as error:
            outcome, detail = "unexpected", f"{type(error).__name__}: {error}"
        finally:
            faulthandler.cancel_dump_traceback_later()
    return outcome, detail, time.monotonic() - started


@functools.cache
def _length_sec(good: str) -> float:
    """How long a good file lasts."""
    record = make_record(good, None, None, config=CONFIG, id="x", source="x")
    return record["end_sec"] - record["start_sec"]


def contradiction(record: dict, config: ExtractConfig) -> str:
    """What in a record does not agree with its own span; empty when all does."""
    span_sec = record["end_sec"] - record["start_sec"]
    if not (math.isfinite(span_sec) and 0 < span_sec <= config.max_clip_sec):
        return f"span {record['start_sec']} to {record['end_sec']}"
    num_frames, most = len(record["frames"]), math.ceil(span_sec * config.frame_rate_hz - 1e-6)
    least = 0 if NO_VIDEO in record["flags"] else 1
    if not least <= num_frames <= least * max(1, most):
        return f"{num_frames} frames in {span_sec} s"
    rows = num_fbank_frames(round(span_sec * SAMPLE_RATE_HZ)) if record["has_audio"] else 0
    if record["fbank"].shape != (rows, 128) or not np.isfinite(record["fbank"]).all():
        return f"fbank {record['fbank'].shape} in {span_sec} s"
    if num_frames / config.frame_rate_hz < span_sec - 0.5 and not record["has_audio"]:
        return f"only {num_frames} frames and no sound in {span_sec} s"
    if not set(record["flags"]) <= set(FLAG_CODES):
        return f"flags {record['flags']}"
    sizes = {simplejpeg.decode_jpeg_header(jpeg)[:2] for jpeg in record["frames"]}
    return "" if len(sizes) == least else f"frames of sizes {sizes}"
