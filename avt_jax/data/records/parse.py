"""Reads a stored record without touching what is not asked for.

TFDS's own reader makes an object of every frame. Training looks at a few of them, and what it does
not copy saves a twentieth of the time that a clip takes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from avt_jax.data.records.labels import many_hot

# The exponent of a float16 that is no finite number.
_NOT_FINITE = np.uint16(0x7C00)


def parse_record(
    serialized: bytes,
    label_sets: Mapping[str, Sequence[str]],
    mel_bins: int,
    multi_label: Collection[str] = (),
) -> dict[str, Any]:
    """Takes a record apart, and checks all that its readers rely on but the frames themselves.

    Args:
      serialized: a `tf.train.Example` with the features of `records.record_features`.
      label_sets: class names per label set.
      mel_bins: columns of the spectrogram.
      multi_label: the label sets whose label is a list of classes.

    Returns:
      The fields that `records.open_split` describes. "frames" is a sequence that makes the bytes of
      a frame when asked for it; "fbank" cannot be written to.

    Raises:
      ValueError: it is none, a field is missing, or one does not hold what it should.
    """
    fields = fields_of(serialized)
    facts = facts_of(fields, label_sets, multi_label)
    frame_rate_hz = float(one_value(fields, "frame_rate_hz", "float_list"))
    if not 0 < frame_rate_hz < math.inf:
        raise ValueError(f"it has {frame_rate_hz:g} frames per second")
    fbank_sf = _fbank(fields, mel_bins)
    if facts["has_audio"] != (len(fbank_sf) > 0):
        raise ValueError(f"has_audio is {facts['has_audio']} with {len(fbank_sf)} fbank rows")
    return {
        **facts,
        "frames": all_values(fields, "frames", "bytes_list"),
        "frame_rate_hz": frame_rate_hz,
        "fbank": fbank_sf,
    }


def facts_of(
    fields: Mapping[str, Any],
    label_sets: Mapping[str, Sequence[str]],
    multi_label: Collection[str],
) -> dict[str, Any]:
    """What records of clips and of their tokens have in common: names, span, faults, labels.

    Raises:
      ValueError: a field is missing, or does not hold what it should.
    """
    start_sec, end_sec = seconds_of(fields, "start_sec"), seconds_of(fields, "end_sec")
    if not 0 < end_sec - start_sec < math.inf:
        raise ValueError(f"its span is {start_sec:g} to {end_sec:g} s")
    # Schema 1.0 had no flags.
    flags = all_values(fields, "flags", "bytes_list") if "flags" in fields else ()
    return {
        "id": one_value(fields, "id", "bytes_list").decode(),
        "source": one_value(fields, "source", "bytes_list").decode(),
        "has_audio": bool(one_value(fields, "has_audio", "int64_list")),
        "start_sec": start_sec,
        "end_sec": end_sec,
        "flags": [flag.decode() for flag in flags],
        "labels": labels_of(fields, label_sets, multi_label),
    }


def parse_labels(
    serialized: bytes,
    label_sets: Mapping[str, Sequence[str]],
    multi_label: Collection[str] = (),
) -> dict[str, Any]:
    """The field "labels" alone, as `parse_record` gives it; the other fields are not looked at.

    Raises:
      ValueError: it is no record, or its labels are none of the classes.
    """
    return labels_of(fields_of(serialized), label_sets, multi_label)


def fields_of(serialized: bytes) -> Any:
    """The features of a `tf.train.Example` by name; ValueError where it is none."""
    from google.protobuf.message import DecodeError

    from avt_jax.data.records.example_proto import example_class

    try:
        return example_class().FromString(serialized).features.feature
    except DecodeError as error:
        raise ValueError(f"no record ({error})") from error


def labels_of(
    fields: Mapping[str, Any], label_sets: Mapping[str, Sequence[str]], multi_label: Collection[str]
) -> dict[str, Any]:
    """{label set: class index, or uint8 [y] of a multi-label set}; ValueError where it is none."""
    return {
        name: (many_of if name in multi_label else label_of)(fields, name, len(names))
        for name, names in label_sets.items()
    }


def _fbank(fields: Mapping[str, Any], mel_bins: int) -> np.ndarray:
    stored = np.frombuffer(one_value(fields, "fbank", "bytes_list"), np.float16)
    # Several times quicker than isfinite, which has no float16 of its own.
    if ((stored.view(np.uint16) & _NOT_FINITE) == _NOT_FINITE).any():
        raise ValueError("its fbank is not finite")
    return stored.reshape(-1, mel_bins)


def label_of(fields: Mapping[str, Any], name: str, num_classes: int) -> int:
    """The class index in a label set; ValueError where it is none."""
    index = int(one_value(fields, f"labels/{name}", "int64_list"))
    if not 0 <= index < num_classes:
        raise ValueError(f"its {name} is class {index} of {num_classes}")
    return index


def many_of(fields: Mapping[str, Any], name: str, num_classes: int) -> np.ndarray:
    """uint8 [y], 1 for the classes named in a multi-label set; ValueError where one is none."""
    indices = [int(index) for index in all_values(fields, f"labels/{name}", "int64_list")]
    for index in indices:
        if not 0 <= index < num_classes:
            raise ValueError(f"its {name} is class {index} of {num_classes}")
    return many_hot(indices, num_classes)


def all_values(fields: Mapping[str, Any], name: str, kind: str) -> Any:
    """The list of a feature; ValueError where it is missing."""
    # Asking a protobuf map for what it does not hold would put it there.
    if name not in fields:
        raise ValueError(f"it has no {name!r}")
    return getattr(fields[name], kind).value


def one_value(fields: Mapping[str, Any], name: str, kind: str) -> Any:
    """The only value of a feature; ValueError where there is not one."""
    values = all_values(fields, name, kind)
    if len(values) != 1:
        raise ValueError(f"its {name!r} holds {len(values)} values")
    return values[0]


def seconds_of(fields: Mapping[str, Any], name: str) -> float:
    """A time in seconds; ValueError where there is none."""
    (value,) = np.frombuffer(one_value(fields, name, "bytes_list"), np.float64)
    return float(value)
