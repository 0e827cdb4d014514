"""How the process gets its memory, where that decides how fast a CPU trains."""

from __future__ import annotations

import os
import sys

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
    try:
        os.execve(sys.executable, words, {**os.environ, _VARIABLE: TUNABLES})
    except OSError:  # the command works without it
        return
