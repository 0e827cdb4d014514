"""Reads a stored record without touching what is not asked for.

TFDS's own reader makes an object of every frame. Training looks at a few of them, and what it does
not copy saves a twentieth of the time that a clip takes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np


def parse_record(serialized: bytes, label_sets: Collection[str], mel_bins: int) -> dict[str, Any]:
    """Takes a record apart.

    Args:
      serialized: a `tf.train.Example` with the features of `records.record_features`.
      label_sets: names of the label sets.
      mel_bins: columns of the spectrogram.

    Returns:
      The fields that `records.open_split` describes. "frames" is a sequence that makes the bytes of
      a frame when asked for it; "fbank" cannot be written to.

    Raises:
      ValueError: it is none, a field is missing, or one does not hold what it should.
    """
    from google.protobuf.message import DecodeError

    from avt_jax.data.records.example_proto import example_class

    try:
        fields = example_class().FromString(serialized).features.feature
    except DecodeError as error:
        raise ValueError(f"no record ({error})") from error
    fbank = _one(fields, "fbank", "bytes_list")
    return {
        "id": _one(fields, "id", "bytes_list").decode(),
        "source": _one(fields, "source", "bytes_list").decode(),
        "frames": _all(fields, "frames", "bytes_list"),
        "frame_rate_hz": float(_one(fields, "frame_rate_hz", "float_list")),
        "fbank": np.frombuffer(fbank, np.float16).reshape(-1, mel_bins),
        "has_audio": bool(_one(fields, "has_audio", "int64_list")),
        "start_sec": _seconds(fields, "start_sec"),
        "end_sec": _seconds(fields, "end_sec"),
        # Schema 1.0 had none.
        "flags": [
            flag.decode()
            for flag in (_all(fields, "flags", "bytes_list") if "flags" in fields else ())
        ],
        "labels": {name: int(_one(fields, f"labels/{name}", "int64_list")) for name in label_sets},
    }


def _all(fields: Mapping[str, Any], name: str, kind: str) -> Any:
    # Asking a protobuf map for what it does not hold would put it there.
    if name not in fields:
        raise ValueError(f"it has no {name!r}")
    return getattr(fields[name], kind).value


def _one(fields: Mapping[str, Any], name: str, kind: str) -> Any:
    values = _all(fields, name, kind)
    if len(values) != 1:
        raise ValueError(f"its {name!r} holds {len(values)} values")
    return values[0]


def _seconds(fields: Mapping[str, Any], name: str) -> float:
    (value,) = np.frombuffer(_one(fields, name, "bytes_list"), np.float64)
    return float(value)
