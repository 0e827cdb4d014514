"""Says that programs are being compiled, how long it took the last time, and when it is done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tqdm

from avt_jax.errors import UserError
from avt_jax.host.cache import cache_folder
from avt_jax.host.lock import locked
from avt_jax.host.new_files import write_json

_FILE, _LOCK = "compile-seconds.json", "compile-seconds.lock"
# More programs than anybody goes back and forth between; those seen longest ago go first.
_MAX_PROGRAMS, _MAX_BYTES = 200, 64 * 2**10
_MAX_SEC = 7 * 24 * 3600.0
# Between two lines where no terminal shows that something goes on.
_LINE_EVERY_SEC, _SPIN_EVERY_SEC = 15.0, 0.5

Say = Callable[[str], None]


class Compiling:
    """One start's compiling, which may come in parts: `with compiling: ...`, then `done()`.

    The first part says that it begins. While a part runs a terminal shows the seconds, anything
    else a line now and then.

    Args:
      what: that decides the programs; whatever JSON can hold.
      say: takes a line for the user; None = nothing is said and nothing remembered.
    """

    def __init__(self, what: Any, say: Say | None):
        self._program, self._say = fingerprint(what), say
        self._total_sec, self._began_sec = 0.0, 0.0
        self._has_begun = False
        self._stop: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Compiling:
        self._began_sec = time.monotonic()
        if self._say is None:
            return self
        if not self._has_begun:
            self._has_begun = True
            self._tell(_beginning(last_sec(self._program)))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show, args=(self._stop,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._total_sec += time.monotonic() - self._began_sec
        if self._stop and self._thread:
            self._stop.set()
            self._thread.join()

    def done(self) -> None:
        """Says how long all parts took together, and remembers it."""
        if self._say is None:
            return
        self._tell(f"compiled in {self._total_sec:.1f} s")
        remember(self._program, self._total_sec)

    def _tell(self, line: str) -> None:
        # Above the progress bars that are there.
        with tqdm.tqdm.external_write_mode(file=sys.stderr):
            assert self._say is not None
            self._say(line)

    def _show(self, stop: threading.Event) -> None:
        """Until it is told to stop."""
        if not sys.stderr.isatty():
            while not stop.wait(_LINE_EVERY_SEC):
                self._tell(f"still compiling, {self._so_far_sec():.0f} s so far")
            return
        with tqdm.tqdm(bar_format="{desc}", leave=False) as line:
            for mark in _marks():
                line.set_description_str(f"{mark} compiling, {self._so_far_sec():.0f} s")
                if stop.wait(_SPIN_EVERY_SEC):
                    return

    def _so_far_sec(self) -> float:
        return self._total_sec + time.monotonic() - self._began_sec


@contextlib.contextmanager
def compiling(what: Any, say: Say | None) -> Iterator[None]:
    """Compiling that comes in one part, the body; the arguments are those of `Compiling`."""
    whole = Compiling(what, say)
    with whole:
        yield
    whole.done()


def _marks() -> Iterator[str]:
    while True:
        yield from "|/-\\"


def _beginning(last: float | None) -> str:
    if last is not None:
        return f"compiling ({max(1, round(last))} s last time)"
    kept = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if kept and os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "true").lower() == "true":
        return "compiling (the first time takes longest)"
    return "compiling"


def fingerprint(what: Any) -> str:
    """A name for what decides a program.

    Args:
      what: whatever JSON can hold; other values count by their text.
    """
    text = json.dumps(what, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def last_sec(program: str) -> float | None:
    """Seconds that compiling a program took the last time here; None where that is not known.

    Args:
      program: its fingerprint.
    """
    try:
        return _read(cache_folder() / _FILE).get(program)
    except (OSError, RuntimeError):  # no home
        return None


def remember(program: str, seconds: float) -> None:
    """Keeps what `last_sec` gives, for all processes of this user; or not, if that is not possible.

    Args:
      program: its fingerprint.
      seconds: that it took.
    """
    with contextlib.suppress(OSError, RuntimeError, UserError):
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return
        with locked(folder / _LOCK, on_wait=lambda: None):
            known = _read(folder / _FILE)
            known.pop(program, None)
            known[program] = round(seconds, 3)
            newest = list(known.items())[-_MAX_PROGRAMS:]
            write_json(folder / _FILE, dict(newest), indent=None)


def _read(path: Path) -> dict[str, float]:
    """{fingerprint: seconds}, those seen longest ago first; {} of a file that is none of ours."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        program: float(seconds)
        for program, seconds in found.items()
        if isinstance(seconds, int | float) and 0 <= seconds <= _MAX_SEC
    }
