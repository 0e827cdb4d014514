"""What the recipe `own` asks before it decides: the clips, and the machine."""

from __future__ import annotations

from pathlib import Path

import jax

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


def has_accelerator() -> bool:
    """Whether JAX computes on something else than a CPU."""
    return jax.default_backend() != "cpu"
