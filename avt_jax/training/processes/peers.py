"""Watches the other processes of a job: one that dies or hangs ends it, and is named.

Without this the others would wait for as long as the network lets them, or be aborted with a trace
of C++. A thread tells JAX's coordination service every second that its process lives, and reads
what the others tell.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from typing import Any

from avt_jax.host.output.terminal import show

# What a job ends with that can be started again: that of EX_TEMPFAIL.
EXIT_CODE = 75
_BEAT_SEC = 1.0
_FOLDER = "avt_jax/alive"
_FAILED, _DONE = "failed", "done"

_current: _Watch | None = None


def watch(process_id: int, num_processes: int, *, timeout_sec: int) -> None:
    """Starts to watch; once a process.

    Args:
      process_id: of this process.
      num_processes: of the job.
      timeout_sec: a process that has not been heard of for so long is taken for dead.
    """
    global _current
    client = _coordination_client()
    if client is None or num_processes == 1:
        return
    _current = _Watch(client, process_id, num_processes, timeout_sec)
    _current.start()


def doing(what: str) -> None:
    """Says what this process is about to do, for the message of others that wait for it."""
    if _current is not None:
        _current.what = what


def failed(message: str) -> None:
    """Tells the others that this process ends, and why."""
    if _current is not None:
        _current.say(_FAILED, message)


def lost(error: BaseException) -> bool:
    """Whether an exception says that the connection to another process broke; waits to name it.

    Does not return where the other process is found: the job then ends.
    """
    text = str(error)
    known = ("closed by peer", "reset by peer", "Connection refused", "Gloo", "gloo", "UNAVAILABLE")
    if _current is None or not any(one in text for one in known):
        return False
    _current.join(_current.timeout_sec + 2 * _BEAT_SEC)
    return True


def stop_watching() -> None:
    """The job has ended well: the others may go."""
    global _current
    if _current is not None:
        _current.say(_DONE, "")
        _current = None


def _coordination_client() -> Any:
    # Not public, though Orbax reads it, too; without it there is no watch, and JAX aborts.
    from jax._src import distributed

    return getattr(getattr(distributed, "global_state", None), "client", None)


class _Watch(threading.Thread):
    """The thread."""

    def __init__(self, client: Any, process_id: int, num_processes: int, timeout_sec: int):
        super().__init__(name="avt-peers", daemon=True)
        self._client = client
        self._id, self.count, self.timeout_sec = process_id, num_processes, timeout_sec
        self.what = "starting"
        self.ended = threading.Event()
        self._host = socket.gethostname()

    def _tell(self, word: str, text: str) -> None:
        self._client.key_value_set(
            f"{_FOLDER}/{self._id}", f"{word}\n{self._host}\n{text}", allow_overwrite=True
        )

    def say(self, word: str, text: str) -> None:
        """Tells the last thing."""
        self.ended.set()
        with contextlib.suppress(Exception):  # whatever the service says: this process ends anyway
            self._tell(word, text)

    def run(self) -> None:
        beat, answered = 0, time.monotonic()
        heard: dict[int, tuple[str, float]] = {}
        while not self.ended.wait(_BEAT_SEC):
            beat += 1
            now = time.monotonic()
            try:
                self._tell(str(beat), self.what)
                found = dict(self._client.key_value_dir_get(_FOLDER))
                answered = now
            except Exception as error:  # the service is in the first process, and of C++
                if now - answered > min(self.timeout_sec, 5 * _BEAT_SEC):
                    self.end(f"process 0 of {self.count} does not answer ({type(error).__name__})")
                continue
            for index in range(self.count):
                text = found.get(f"{_FOLDER}/{index}", "")
                if heard.get(index, ("", 0.0))[0] != text or index not in heard:
                    heard[index] = (text, now)
                self._judge(index, *heard[index], now)

    def _judge(self, index: int, text: str, since: float, now: float) -> None:
        if index == self._id:
            return
        word, _, rest = text.partition("\n")
        host, _, what = rest.partition("\n")
        name = f"process {index} of {self.count}" + (f" on {host}" if host else "")
        if word == _FAILED:
            self.end(f"{name} has failed: {what}")
        if word != _DONE and now - since > self.timeout_sec:
            self.end(
                f"{name} has not been heard of for {now - since:.0f} s; it died or hangs"
                + (f" (at last {what})" if what else "")
            )

    def end(self, why: str) -> None:
        if self.ended.is_set():
            return
        show(
            f"avt: error: {why}. This process ends, too; start all of them again, a training goes "
            "on from its last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_CODE)
