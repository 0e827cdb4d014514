"""What a record must be like: everything that no extraction would have written is named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import simplejpeg

from avt_jax.data import records
from avt_jax.data.media.jpeg import frame_shape
from avt_jax.errors import first_line


def check_record(record: Mapping[str, Any], info: records.RecordsInfo) -> list[str]:
    """Looks for everything that no extraction would have written.

    Args:
      record: as `records.open_split` gives it.
      info: of its folder.

    Returns:
      One phrase for each thing that is wrong.
    """
    complaints = [f"has no {name}" for name in ("id", "source") if not record[name]]
    start_sec, end_sec = float(record["start_sec"]), float(record["end_sec"])
    span_sec = end_sec - start_sec
    if not (math.isfinite(span_sec) and start_sec >= 0 and span_sec > 0):
        complaints.append(f"its span is {start_sec:g} to {end_sec:g} s")
        span_sec = math.inf  # no length to compare the others with
    if np.float32(record["frame_rate_hz"]) != np.float32(info.frame_rate_hz):
        complaints.append(
            f"has {record['frame_rate_hz']:g} frames per second, not {info.frame_rate_hz:g}"
        )
    most = span_sec * info.frame_rate_hz + 1
    if len(record["frames"]) > most:
        complaints.append(f"has {len(record['frames'])} frames in {span_sec:g} s")
    if records.has_video(record):
        complaints += _frame_complaints(record["frames"], info.short_side_px)
    elif len(record["frames"]):
        complaints.append(f"has {len(record['frames'])} frames and the flag {records.NO_VIDEO}")
    elif not record["has_audio"]:
        complaints.append("has neither frames nor sound")
    complaints += _fbank_complaints(record["fbank"], bool(record["has_audio"]), span_sec)
    for name, classes in info.label_sets.items():
        label = record["labels"][name]
        # As it is stored, a label of a multi-label set is a list of classes.
        wrong = [i for i in np.atleast_1d(label).tolist() if not 0 <= i < len(classes)]
        complaints += [f"its {name} is class {wrong[0]} of {len(classes)}"] if wrong else []
    if records.can_rewrite(info.schema_version):
        unknown = [code for code in record["flags"] if code not in records.FLAG_CODES]
        complaints += [f"has an unknown flag {code[:40]!r}" for code in unknown]
    return complaints


def _frame_complaints(frames: list[bytes], short_side_px: int) -> list[str]:
    """At most one complaint, of the first frame that deserves it."""
    if not frames:
        return ["has no frames"]
    first_size = (0, 0)
    for number, jpeg in enumerate(frames):
        if number and jpeg == frames[number - 1]:
            continue
        try:
            size = frame_shape(jpeg)
            image_hwc = simplejpeg.decode_jpeg(jpeg, fastdct=True, fastupsample=True)
        except ValueError as error:
            return [f"frame {number} is not a whole JPEG ({first_line(error)})"]
        if image_hwc.shape[:2] != size:
            return [f"frame {number} has another size than its header says"]
        if not number:
            first_size = size
        if size != first_size:
            return [f"frame {number} is {_size(size)} px, the first {_size(first_size)}"]
    if min(first_size) > short_side_px:
        return [f"its frames are {_size(first_size)} px with a short side of {short_side_px}"]
    return []


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _fbank_complaints(fbank_sf: np.ndarray, has_audio: bool, span_sec: float) -> list[str]:
    complaints = []
    if fbank_sf.ndim != 2 or fbank_sf.shape[1] != records.MEL_BINS:
        complaints.append(f"its fbank has the shape {fbank_sf.shape}")
    if len(fbank_sf) > span_sec * records.FBANK_RATE_HZ + 1:
        complaints.append(f"has {len(fbank_sf)} fbank rows in {span_sec:g} s")
    if not np.isfinite(fbank_sf).all():
        complaints.append("its fbank is not finite")
    if has_audio != (len(fbank_sf) > 0):
        complaints.append(f"has_audio is {has_audio} with {len(fbank_sf)} fbank rows")
    return complaints
