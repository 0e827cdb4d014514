"""Ctrl-C and SIGTERM: the first one asks a training to save and stop, the second one ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from avt_jax.host.output.terminal import show

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# One that comes sooner is the same request, come twice.
_SECOND_AFTER_SEC = 1.0

_is_own_process = False


def this_process_is_ours() -> None:
    """Says that the process does nothing but this command, so that it may be ended at once."""
    global _is_own_process
    _is_own_process = True


class _BySignal(BaseException):
    """What a signal ends.

    Attributes:
      signal: its number.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.signal = number


class Stopped(_BySignal, KeyboardInterrupt):
    """A training that was stopped, once a checkpoint is saved."""


class Interrupted(_BySignal, Exception):
    """Work that was left because a signal asks to stop; nothing of it is kept."""


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a request, within a `with`.

    Until `begun` a process of ours is ended at once instead: there is nothing to save, and Python
    would not see a signal before the compiler returns.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._noted_sec = 0.0
        self._before: dict[int, Any] = {}
        self._ends_at_once = _is_own_process
        self._ours, self._wakeup = socket.socketpair()
        self._listens = False

    def asked(self) -> int:
        """The signal's number, 0 without one."""
        return self._signal or 0

    def begun(self) -> None:
        """There is something to save from now on."""
        self._ends_at_once = False

    def __enter__(self) -> StopRequest:
        with contextlib.suppress(ValueError):  # not in the main thread: leave signals alone
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
            if self._ends_at_once:
                self._wakeup.setblocking(False)
                signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
                self._listens = True
                threading.Thread(target=self._listen, name="avt-stop", daemon=True).start()
                # That thread takes the signals. What is started from here on, workers that read
                # data among them, inherits the mask: a scheduler that signals a whole tree of
                # processes does not take the data away from a training that is to save.
                signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        return self

    def _note(self, number: int, _frame: Any) -> None:
        now = time.monotonic()
        if self._signal is None:
            self._signal, self._noted_sec = number, now
        # Launchers send a signal to a process and to what started it, which hands it on.
        elif now - self._noted_sec > _SECOND_AFTER_SEC:
            signal.signal(number, self._before[number])
            os.kill(os.getpid(), number)

    def _listen(self) -> None:
        # Python writes each signal's number there the moment that it comes.
        with self._ours:
            while received := self._ours.recv(1):
                if received[0] in _SIGNALS and self._ends_at_once:
                    show(
                        "avt: stopped before the first step was done; there was nothing to save",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(128 + received[0])

    def __exit__(self, *_: object) -> None:
        if _is_own_process:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._wakeup.close()  # the thread reads the end
        if not self._listens:
            self._ours.close()
