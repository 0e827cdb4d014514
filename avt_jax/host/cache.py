"""Where results are kept that can be made again: compiled programs, what was measured."""

from __future__ import annotations

import hashlib
import os
import platform
import re
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


def compiled_folder() -> Path:
    """The folder of compiled programs for processors like this one; it need not exist yet.

    A home that several machines share may hold programs for instructions that this one lacks.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    known = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    kind = f"{platform.machine()} {known[1] if known else platform.processor()}"
    return cache_folder() / "compiled" / hashlib.sha256(kind.encode()).hexdigest()[:16]
