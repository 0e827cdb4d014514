"""What one stored clip looks like: names, fields and versions.

Frame i of a record shows its source at `start_sec + i / frame_rate_hz`; row j of `fbank` covers
[j * 10 ms, j * 10 ms + 25 ms) after `start_sec`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

SCHEMA_VERSION = "1.1.0"
"""Version of the record layout. 1.1.0 added `flags`; folders of 1.0.0 are read as without any."""

NO_VIDEO = "no_video"
"""Flag of a clip of sound alone: it has no frames."""

HDR = "hdr"
"""Flag of a clip whose source has a high dynamic range (PQ or HLG)."""

FLAG_CODES = (
    "silent_audio",  # there is sound, but never louder than -60 dBFS
    "partial_audio",  # the sound covers only a part of the clip
    "still_video",  # all frames show the same picture
    "short",  # the pictures end before the manifest's end
    HDR,  # the pictures were mapped from a high dynamic range to an ordinary one
    "damaged",  # packets that could not be decoded were left out
    NO_VIDEO,  # there is no picture: `frames` is empty
)
MEL_BINS = 128
FBANK_RATE_HZ = 100
"""Spectrogram rows per second (10 ms hop)."""

SPLITS = ("train", "val", "test")
CHECKSUM_FILE = "SHA256SUMS"
DATASET_NAME = "avt_clips"


@dataclasses.dataclass(frozen=True)
class TokensInfo:
    """What a folder of cached tokens says about them.

    Attributes:
      shapes: {modality: (tokens, width)} of a clip, of "video" and "audio".
      dtype: "float16" or "float32".
      config: {"model": ..., "data": ...}, blocks of the config whose encoders they are of.
      encoders: {modality: SHA-256 of its weights}.
      views: varied views of each training clip, beside the unvaried one.
    """

    shapes: Mapping[str, tuple[int, int]]
    dtype: str
    config: Mapping[str, Any]
    encoders: Mapping[str, str]
    views: int


@dataclasses.dataclass(frozen=True)
class RecordsInfo:
    """What a shard folder says about itself.

    Attributes:
      label_sets: class names of every label set, in the order of their indices.
      splits: number of clips per split.
      frame_rate_hz: frames stored per second of video.
      short_side_px: length of the shorter side of a stored frame.
      jpeg_quality: of the stored frames, 1 to 100.
      schema_version: version of the record layout, `SCHEMA_VERSION` when it was written.
      tokens: of a folder of cached tokens; None of clips.
    """

    label_sets: dict[str, tuple[str, ...]]
    splits: dict[str, int]
    frame_rate_hz: float
    short_side_px: int
    jpeg_quality: int
    schema_version: str
    tokens: TokensInfo | None = None


def has_video(record: Mapping[str, Any]) -> bool:
    """False for a clip of sound alone. Frames that are missing without the flag are damage."""
    return NO_VIDEO not in record.get("flags", ())


def tokens_key(modality: str) -> str:
    """The field of a record with the cached tokens of "video" or "audio"."""
    return f"{modality}_tokens"


def shard_names(split: str, num_shards: int) -> list[str]:
    """The names by which TFDS finds the shards of a split, in order."""
    start = f"{DATASET_NAME}-{split}.array_record"
    return [f"{start}-{index:05d}-of-{num_shards:05d}" for index in range(num_shards)]


def record_features(
    label_sets: Mapping[str, tuple[str, ...]],
    *,
    schema_version: str = SCHEMA_VERSION,
    tokens: TokensInfo | None = None,
) -> tfds.features.FeaturesDict:
    """The TFDS features of one clip.

    Args:
      label_sets: class names per label set.
      schema_version: of the folder that is read or written, "1.<minor>.<patch>".
      tokens: of a folder of cached tokens; None = clips.

    Returns:
      A features dict. Times are stored as raw bytes because TFDS would round them to float32,
      which an hour into a film is a quarter of a millisecond off.
    """
    from tensorflow_datasets import features

    seconds = features.Tensor(shape=(), dtype=np.float64, encoding="bytes")
    # A later minor version only adds fields, and those are not read.
    has_flags = int(schema_version.split(".")[1]) >= 1
    content: dict[str, Any] = {
        "frames": features.Sequence(features.Tensor(shape=(), dtype=np.object_)),
        "frame_rate_hz": features.Tensor(shape=(), dtype=np.float32),
        "fbank": features.Tensor(shape=(None, MEL_BINS), dtype=np.float16, encoding="bytes"),
    }
    if tokens is not None:
        kind = np.dtype(tokens.dtype)
        content = {
            tokens_key(name): features.Tensor(shape=(None, *shape), dtype=kind, encoding="bytes")
            for name, shape in tokens.shapes.items()
        }
    return features.FeaturesDict(
        {
            "id": features.Text(),
            "source": features.Text(),
            **content,
            "has_audio": features.Tensor(shape=(), dtype=np.bool_),
            "start_sec": seconds,
            "end_sec": seconds,
            **({"flags": features.Sequence(features.Text())} if has_flags else {}),
            "labels": features.FeaturesDict(
                {name: features.ClassLabel(names=list(c)) for name, c in label_sets.items()}
            ),
        }
    )
