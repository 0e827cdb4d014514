"""Where results are kept that can be made again: compiled programs, what was measured."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder, which need not exist yet.

    `$AVT_CACHE`, else `avt_jax` in `$XDG_CACHE_HOME`, else `~/.cache/avt_jax`.
    """
    own = os.environ.get("AVT_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "avt_jax"
