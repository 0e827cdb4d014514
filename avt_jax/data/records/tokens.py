"""Cached tokens: what frozen encoders gave of each clip, stored like clips.

A folder of them is a shard folder whose records hold, in place of frames and sound, an array
[views, tokens, width] for each modality. The first view is the unvaried clip, as an evaluation
sees it; more views are varied as training clips are. `metadata.json` says of which encoders they
are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from avt_jax.data.records.description import read_description
from avt_jax.data.records.parse import facts_of, fields_of, one_value
from avt_jax.data.records.schema import RecordsInfo, TokensInfo, tokens_key
from avt_jax.data.records.source import ShardSource
from avt_jax.errors import UserError

MAX_VIEWS = 64
"""Most varied views of a clip."""


def read_tokens_info(path: str | os.PathLike[str]) -> tuple[RecordsInfo, TokensInfo]:
    """What a folder of cached tokens says about itself, as any shard folder and of its tokens.

    Args:
      path: folder that `avt tokens` made, or URL of one.

    Raises:
      UserError: no such folder, a damaged one, or one of clips.
    """
    info = read_description(path)
    if info.tokens is None:
        raise UserError(
            f"{path} holds clips, no cached tokens; 'avt tokens' makes tokens of clips, and with "
            "--join, of a run that was trained on tokens, one that reads clips."
        )
    return info, info.tokens


class TokenSource(ShardSource):
    """The records of one split, by index; see `open_tokens`."""

    _remedy = "run 'avt tokens' again"

    def _parse(self, serialized: bytes) -> dict[str, Any]:
        tokens = self._info.tokens
        if tokens is None:  # the folder was another one when this was opened
            raise ValueError("its folder holds clips")
        return parse_tokens(serialized, self._info, tokens)


def open_tokens(path: str | os.PathLike[str], split: str) -> TokenSource:
    """Opens one split of cached tokens for random access.

    Args:
      path: folder that `avt tokens` made, or URL of one; the split is then copied here first.
      split: name of the split.

    Returns:
      A sequence of dicts: "id", "source", "start_sec", "end_sec", "has_audio", "flags" and "labels"
      as `records.open_split` has them, and of each modality stored, "video_tokens" or
      "audio_tokens", an array [views, tokens, width] of `TokensInfo.dtype` not to be written to.

    Raises:
      UserError: the folder or the split is missing or damaged, or one of clips.
    """
    read_tokens_info(path)
    return TokenSource(path, split)


def parse_tokens(serialized: bytes, info: RecordsInfo, tokens: TokensInfo) -> dict[str, Any]:
    """Takes a record apart and checks all that its readers rely on.

    Args:
      serialized: a `tf.train.Example` with the features of `schema.record_features`.
      info: of the folder.
      tokens: the same.

    Returns:
      The fields that `open_tokens` describes.

    Raises:
      ValueError: it is none, a field is missing, or one does not hold what it should.
    """
    fields = fields_of(serialized)
    facts = facts_of(fields, info.label_sets, info.multi_label)
    arrays = {tokens_key(name): _array(fields, name, tokens) for name in tokens.shapes}
    views = {len(array) for array in arrays.values()}
    if len(views) != 1 or not 1 <= max(views) <= 1 + MAX_VIEWS:
        raise ValueError(f"its modalities have {sorted(views)} views")
    return {**facts, **arrays}


def _array(fields: Mapping[str, Any], name: str, tokens: TokensInfo) -> np.ndarray:
    count, width = tokens.shapes[name]
    stored = np.frombuffer(
        one_value(fields, tokens_key(name), "bytes_list"), np.dtype(tokens.dtype)
    )
    if not np.isfinite(stored).all():
        raise ValueError(f"its {name} tokens are not finite")
    if not stored.size or stored.size % (count * width):
        raise ValueError(f"its {name} tokens are {stored.size} numbers, not of {count} x {width}")
    return stored.reshape(-1, count, width)
