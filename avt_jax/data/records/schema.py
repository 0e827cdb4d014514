"""What one stored clip looks like: names, fields and versions.

Frame i of a record shows its source at `start_sec + i / frame_rate_hz`; row j of `fbank` covers
[j * 10 ms, j * 10 ms + 25 ms) after `start_sec`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from avt_jax.errors import UserError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

SCHEMA_VERSION = "1.1.0"
"""Version of the record layout. 1.1.0 added `flags`; folders of 1.0.0 are read as without any."""

MULTI_LABEL_VERSION = "2.0.0"
"""The same with a multi-label set, whose label is a list: what knows only 1.x cannot read it."""

_VERSIONS = (SCHEMA_VERSION, MULTI_LABEL_VERSION)

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
      schema_version: version of the record layout, `written_version` when it was written.
      multi_label: the label sets of which a clip may have any number of classes.
      tokens: of a folder of cached tokens; None of clips.
    """

    label_sets: dict[str, tuple[str, ...]]
    splits: dict[str, int]
    frame_rate_hz: float
    short_side_px: int
    jpeg_quality: int
    schema_version: str
    multi_label: tuple[str, ...] = ()
    tokens: TokensInfo | None = None

    def num_clips(self, split: str) -> int:
        """Clips of a split, or of several as `split_names` has them; 0 of one that is not there."""
        return sum(self.splits.get(name, 0) for name in split_names(split))


def split_names(split: str) -> tuple[str, ...]:
    """("train", "val") of "train+val": splits that are read as one, in this order.

    Raises:
      UserError: one is named twice.
    """
    names = tuple(split.split("+"))
    if len(set(names)) < len(names):
        raise UserError(f"the split {split!r} names one twice; give each once.")
    return names


def written_version(multi_label: Collection[str]) -> str:
    """The schema version of a folder with these multi-label sets."""
    return MULTI_LABEL_VERSION if multi_label else SCHEMA_VERSION


def can_rewrite(schema_version: str) -> bool:
    """Whether this version knows all fields of a folder."""
    major, minor = map(int, schema_version.split(".")[:2])
    ours = {int(v.split(".")[0]): int(v.split(".")[1]) for v in _VERSIONS}
    return minor <= ours.get(major, -1)


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
    multi_label: Collection[str] = (),
    tokens: TokensInfo | None = None,
) -> tfds.features.FeaturesDict:
    """The TFDS features of one clip.

    Args:
      label_sets: class names per label set.
      schema_version: of the folder that is read or written, "<major>.<minor>.<patch>".
      multi_label: the label sets whose label is a list of classes.
      tokens: of a folder of cached tokens; None = clips.

    Returns:
      A features dict. Times are stored as raw bytes because TFDS would round them to float32,
      which an hour into a film is a quarter of a millisecond off.
    """
    from tensorflow_datasets import features

    seconds = features.Tensor(shape=(), dtype=np.float64, encoding="bytes")
    # A later minor version only adds fields, and those are not read.
    has_flags = tuple(map(int, schema_version.split(".")[:2])) >= (1, 1)

    def label(name: str, classes: tuple[str, ...]) -> Any:
        one = features.ClassLabel(names=list(classes))
        return features.Sequence(one) if name in multi_label else one

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
            "labels": features.FeaturesDict({n: label(n, c) for n, c in label_sets.items()}),
        }
    )
