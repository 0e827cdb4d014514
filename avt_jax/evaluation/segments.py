"""Scores spans found in time against the true ones: frames, boundaries, whole segments.

Every rate is kept as a (sum, count) pair, so clips are added up and divided once.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avt_jax.errors import UserError
from avt_jax.host.output.cells import cell_text

FRAME_SEC = 0.010
TOLERANCE_SEC = 0.100

_COLUMNS = ("path", "onset_sec", "offset_sec")
_MAX_BYTES = 2**28
_ROUNDING_SEC = 1e-9  # so that a difference of exactly the tolerance is within it

Span = tuple[float, float]


@dataclass(frozen=True)
class SegmentScore:
    """How well the spans of one clip were found.

    Attributes:
      frame: (2 TP, 2 TP + FP + FN) of 10 ms frames; their quotient is F1.
      segment: the same of whole segments, found when onset and offset are within the tolerance.
      onset_error_sec: float64 [matched], detected minus true, of segments that overlap.
      offset_error_sec: float64 [matched].
      num_detected: spans found.
      num_true: true spans.
    """

    frame: tuple[float, float]
    segment: tuple[float, float]
    onset_error_sec: np.ndarray
    offset_error_sec: np.ndarray
    num_detected: int
    num_true: int


def active_frames(spans: Sequence[Span], num_frames: int) -> np.ndarray:
    """Which frames lie in a span: those whose middle does.

    Args:
      spans: (onset_sec, offset_sec), in any order, overlapping or not.
      num_frames: of FRAME_SEC each, from time 0.

    Returns:
      bool [num_frames].
    """
    middle_sec = (np.arange(num_frames) + 0.5) * FRAME_SEC
    active_s = np.zeros(num_frames, bool)
    for onset_sec, offset_sec in spans:
        active_s |= (onset_sec <= middle_sec) & (middle_sec < offset_sec)
    return active_s


def score(
    detected: Sequence[Span],
    true: Sequence[Span],
    *,
    duration_sec: float,
    tolerance_sec: float = TOLERANCE_SEC,
) -> SegmentScore:
    """Compares the spans of one clip.

    For the errors, spans are paired one to one, those that share the most time first; spans that
    overlap no partner have no error and only lower the F1 scores.

    Args:
      detected: (onset_sec, offset_sec), what was found.
      true: (onset_sec, offset_sec), what is there.
      duration_sec: length of the clip; frames past it do not count.
      tolerance_sec: how far onset and offset of a found segment may be off.

    Returns:
      The score.

    Raises:
      ValueError: a span does not have finite times with onset < offset, or the duration is bad.
    """
    detected_d2, true_e2 = _as_array(detected), _as_array(true)
    if not (math.isfinite(duration_sec) and duration_sec >= 0):
        raise ValueError(f"duration_sec must be finite and >= 0, got {duration_sec}")
    num_frames = round(duration_sec / FRAME_SEC)
    found_s, there_s = (active_frames(spans, num_frames) for spans in (detected, true))
    pairs = _most_overlapping(detected_d2, true_e2)
    errors_p2 = np.array([detected_d2[d] - true_e2[e] for d, e in pairs]).reshape(-1, 2)
    apart = np.abs(detected_d2[:, None] - true_e2[None]).max(axis=-1, initial=0.0)
    hits = _most_pairs(apart <= tolerance_sec + _ROUNDING_SEC)
    return SegmentScore(
        frame=(2.0 * (found_s & there_s).sum(), float(found_s.sum() + there_s.sum())),
        segment=(2.0 * hits, float(len(detected_d2) + len(true_e2))),
        onset_error_sec=errors_p2[:, 0],
        offset_error_sec=errors_p2[:, 1],
        num_detected=len(detected_d2),
        num_true=len(true_e2),
    )


def summarize(scores: Iterable[SegmentScore]) -> dict[str, float]:
    """Adds up the scores of many clips.

    Args:
      scores: one per clip.

    Returns:
      "frame_f1" and "segment_f1" in [0, 1] over all clips together; "onset_error_ms_median",
      "onset_error_ms_p90" and the same for "offset", of the absolute errors of matched segments;
      "num_true", "num_detected", "num_matched". NaN where nothing can be divided.
    """
    scores = list(scores)
    summary = {
        "frame_f1": _quotient(s.frame for s in scores),
        "segment_f1": _quotient(s.segment for s in scores),
    }
    for name in ("onset", "offset"):
        parts = [getattr(s, f"{name}_error_sec") for s in scores]
        error_ms = 1e3 * np.abs(np.concatenate(parts)) if parts else np.zeros(0)
        for label, percent in (("median", 50), ("p90", 90)):
            value = float(np.percentile(error_ms, percent)) if len(error_ms) else math.nan
            summary[f"{name}_error_ms_{label}"] = value
    summary["num_true"] = sum(s.num_true for s in scores)
    summary["num_detected"] = sum(s.num_detected for s in scores)
    summary["num_matched"] = sum(len(s.onset_error_sec) for s in scores)
    return summary


def read_truth(path: str | os.PathLike[str]) -> dict[str, list[Span]]:
    """Reads the true spans of many clips, as `avt synthesize` writes them to events.csv.

    Args:
      path: CSV with the columns path, onset_sec, offset_sec; others are not read.

    Returns:
      {path as written: [(onset_sec, offset_sec)]}.

    Raises:
      UserError: the file cannot be read, lacks a column, or has a line that is no span.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path} is larger than {_MAX_BYTES >> 20} MiB; cut it into parts.")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path} has no column {missing[0]!r}; give {', '.join(_COLUMNS)}.")
            spans: dict[str, list[Span]] = {}
            for row in reader:
                spans.setdefault(cell_text(row["path"]), []).append(
                    _span_of(row, path, reader.line_num)
                )
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; give a CSV.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV in UTF-8 ({error}); give one.") from error
    return spans


def _span_of(row: dict[str, str], path: Path, line: int) -> Span:
    try:
        onset_sec, offset_sec = float(row["onset_sec"]), float(row["offset_sec"])
    except (TypeError, ValueError):
        onset_sec, offset_sec = math.nan, math.nan
    if not (0 <= onset_sec < offset_sec < math.inf):
        raise UserError(
            f"{path}, line {line}: {row['onset_sec']} to {row['offset_sec']} is no span; give "
            "seconds with 0 <= onset_sec < offset_sec."
        )
    return onset_sec, offset_sec


def _as_array(spans: Sequence[Span]) -> np.ndarray:
    array = np.asarray(spans, np.float64).reshape(-1, 2)
    if not (np.isfinite(array).all() and (array[:, 0] < array[:, 1]).all()):
        raise ValueError(f"spans need finite onset < offset, got {array.tolist()}")
    return array


def _quotient(pairs: Iterable[tuple[float, float]]) -> float:
    total, count = np.sum([(0.0, 0.0), *pairs], axis=0)
    return float(total / count) if count else math.nan


def _most_overlapping(detected_d2: np.ndarray, true_e2: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of (detected, true), one to one, longest shared time first."""
    shared = np.minimum(detected_d2[:, None, 1], true_e2[None, :, 1]) - np.maximum(
        detected_d2[:, None, 0], true_e2[None, :, 0]
    )
    pairs, used_d, used_e = [], set(), set()
    for flat in np.argsort(-shared, axis=None, kind="stable"):
        d, e = divmod(int(flat), len(true_e2))
        if shared[d, e] <= 0:
            break
        if d not in used_d and e not in used_e:
            pairs.append((d, e))
            used_d.add(d)
            used_e.add(e)
    return sorted(pairs)


def _most_pairs(allowed_de: np.ndarray) -> int:
    """Size of the largest one-to-one pairing among the allowed pairs (augmenting paths)."""
    partner_of: dict[int, int] = {}

    def place(d: int, seen: set[int]) -> bool:
        for e in np.flatnonzero(allowed_de[d]).tolist():
            if e not in seen:
                seen.add(e)
                if e not in partner_of or place(partner_of[e], seen):
                    partner_of[e] = d
                    return True
        return False

    return sum(place(d, set()) for d in range(len(allowed_de)))
