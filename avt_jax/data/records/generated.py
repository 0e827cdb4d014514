"""Records made in memory, so that any recipe can be tried without a data set.

A spec such as "generated:24:verb=97,noun=300" stands where a shard folder would: 24 clips a
split, two label sets. The clips are noise; a model learns nothing from them but that it runs.
"generated:24:label=527+" is a multi-label set, of which a clip has none to three classes.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import simplejpeg

from avt_jax.data.records.labels import many_hot
from avt_jax.data.records.schema import RecordsInfo, written_version
from avt_jax.errors import UserError

_SPEC = re.compile(r"generated:(\d+):(\w+=\d+\+?(?:,\w+=\d+\+?)*)")
_FRAME_RATE_HZ, _SIDE_PX, _JPEG_QUALITY, _CLIP_SEC = 4.0, 48, 80, 2.0


def is_generated(path: str) -> bool:
    """True when `path` is a spec of generated records and not a folder."""
    return path.startswith("generated:")


def open_generated(spec: str, split: str) -> tuple[RecordsInfo, list[dict[str, Any]]]:
    """Makes the records of one split.

    Args:
      spec: "generated:<clips>:<label set>=<classes>[+][,...]".
      split: name of the split; each has its own noise.

    Returns:
      (info, records) as `records.read_info` and `records.open_split` give them.

    Raises:
      UserError: the spec does not read as above.
    """
    match = _SPEC.fullmatch(spec)
    if not match:
        raise UserError(
            f"config.data.path={spec!r} does not read; give a shard folder, or for a trial run "
            "something like generated:24:label=10."
        )
    parts = dict(part.split("=") for part in match[2].split(","))
    sets = {name: int(number.rstrip("+")) for name, number in parts.items()}
    several = tuple(name for name, number in parts.items() if number.endswith("+"))
    label_sets = {
        name: tuple(f"{name} {i}" for i in range(number)) for name, number in sets.items()
    }
    number = int(match[1])
    clips = [_record(split, index, sets, several) for index in range(number)]
    info = RecordsInfo(
        label_sets=label_sets,
        splits={split: number},
        frame_rate_hz=_FRAME_RATE_HZ,
        short_side_px=_SIDE_PX,
        jpeg_quality=_JPEG_QUALITY,
        schema_version=written_version(several),
        multi_label=several,
    )
    return info, clips


def _record(
    split: str, index: int, sets: dict[str, int], several: tuple[str, ...]
) -> dict[str, Any]:
    rng = np.random.default_rng([index, *split.encode()])
    shape = (int(_FRAME_RATE_HZ * _CLIP_SEC), _SIDE_PX, _SIDE_PX, 3)
    frames = rng.integers(0, 256, shape, np.uint8)
    has_audio = index % 5 != 4  # real data has mute clips too
    fbank_sf = rng.normal(-5, 4, (int(_CLIP_SEC * 100) if has_audio else 0, 128))
    return {
        "id": f"{split}-{index}",
        "source": f"{split}-{index // 2}",
        "frames": [simplejpeg.encode_jpeg(frame, quality=_JPEG_QUALITY) for frame in frames],
        "frame_rate_hz": np.float32(_FRAME_RATE_HZ),
        "fbank": fbank_sf.astype(np.float16),
        "has_audio": has_audio,
        "start_sec": 0.0,
        "end_sec": _CLIP_SEC,
        "labels": {
            name: many_hot(rng.integers(number, size=rng.integers(4)).tolist(), number)
            if name in several
            else int(rng.integers(number))
            for name, number in sets.items()
        },
    }
