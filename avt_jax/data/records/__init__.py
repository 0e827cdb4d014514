"""Stored clips: their layout, and how a folder of shards is described, read and written.

What most code needs stands here: `records.read_info(path)`, `records.open_split(path, split)`.
"""

from avt_jax.data.records.access import evenly_spread, label_reader, lazy_reader
from avt_jax.data.records.description import read_info, verify_checksums
from avt_jax.data.records.schema import (
    CHECKSUM_FILE,
    DATASET_NAME,
    FBANK_RATE_HZ,
    FLAG_CODES,
    HDR,
    MEL_BINS,
    NO_VIDEO,
    SCHEMA_VERSION,
    SPLITS,
    RecordsInfo,
    TokensInfo,
    can_rewrite,
    has_video,
    record_features,
    split_names,
    tokens_key,
    written_version,
)
from avt_jax.data.records.source import RecordSource, open_split
from avt_jax.data.records.tokens import open_tokens, read_tokens_info

__all__ = [
    "CHECKSUM_FILE",
    "DATASET_NAME",
    "FBANK_RATE_HZ",
    "FLAG_CODES",
    "HDR",
    "MEL_BINS",
    "NO_VIDEO",
    "SCHEMA_VERSION",
    "SPLITS",
    "RecordSource",
    "RecordsInfo",
    "TokensInfo",
    "can_rewrite",
    "evenly_spread",
    "has_video",
    "label_reader",
    "lazy_reader",
    "open_split",
    "open_tokens",
    "read_info",
    "read_tokens_info",
    "record_features",
    "split_names",
    "tokens_key",
    "verify_checksums",
    "written_version",
]
