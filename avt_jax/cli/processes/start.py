"""The process of a command that computes: how it gets its memory, what it keeps of compiling."""

from __future__ import annotations

import os
import sys

from avt_jax.cli import interrupts
from avt_jax.host.cache import compiled_folder

# A step on a CPU takes and frees large buffers. By default glibc gives each back to the kernel and
# takes it again in pages of 4 KiB, zeroed one fault at a time. Kept, and in huge pages, a step of
# the tiny model takes 0.7 times as long (docs/performance.md). hugetlb is known since glibc 2.35;
# older versions and other libraries ignore all of it.
TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000"
_VARIABLE = "GLIBC_TUNABLES"


def restart_with_kept_memory() -> None:
    """Starts this very command again with glibc told to keep memory; returns where that is no use.

    glibc reads the setting when a process starts, so it cannot be made later. A `GLIBC_TUNABLES`
    in the environment, even an empty one, is left as it is.
    """
    if not sys.platform.startswith("linux") or _VARIABLE in os.environ:
        return
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names or not sys.executable:
        return
    words = [sys.executable, *sys.orig_argv[1:]]
    interrupts.hold_back()
    try:
        os.execve(sys.executable, words, {**os.environ, _VARIABLE: TUNABLES})
    except OSError:  # the command works without it
        interrupts.end_at_once()


# Least recently used programs go first. A training step is a few MB.
_MAX_BYTES = 2 * 2**30
_FOLDER = "JAX_COMPILATION_CACHE_DIR"


def keep_compiled_programs() -> None:
    """Tells JAX, which must not be imported yet, to keep what it compiles.

    A choice that the environment makes (`JAX_COMPILATION_CACHE_DIR`, also an empty one, or
    `JAX_ENABLE_COMPILATION_CACHE`) is left as it is; without a folder that can be written nothing
    is kept. Several processes may share the folder.
    """
    if _FOLDER in os.environ or "JAX_ENABLE_COMPILATION_CACHE" in os.environ:
        return
    try:
        folder = compiled_folder()
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return
    except (OSError, RuntimeError):  # no home
        return
    os.environ[_FOLDER] = str(folder)
    # Also what compiles quickly: a start compiles hundreds of small programs.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(_MAX_BYTES))
