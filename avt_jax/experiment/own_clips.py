"""What the recipe `own` asks before it decides: the clips, and the machine."""

from __future__ import annotations

from pathlib import Path

import jax

from avt_jax.data.records import TokensInfo, read_tokens_info
from avt_jax.data.records.remote import is_remote
from avt_jax.data.shard_tools.sample import ClipSample, sample_split

_COMMON = ClipSample(1000, {"label": 8}, 4.0, 8.0, 72, None, None)


def sample_clips(path: str) -> ClipSample:
    """What the training clips at `config.data.path` look like; without shards, a common case.

    What is generated, or is not there yet, is refused by the training, not by reading a recipe.

    Raises:
      UserError: there are shards, and none of the training clips can be read.
    """
    return sample_split(path) if Path(path).is_dir() or is_remote(path) else _COMMON


def read_tokens(path: str) -> tuple[TokensInfo, int]:
    """(what a folder of cached tokens says of them, clips to train on).

    Raises:
      UserError: no such folder, or one of clips.
    """
    info, tokens = read_tokens_info(path)
    split = str(tokens.config["data"].get("train_split", "train"))
    return tokens, max(1, info.num_clips(split))


def has_accelerator() -> bool:
    """Whether JAX computes on something else than a CPU."""
    return jax.default_backend() != "cpu"
