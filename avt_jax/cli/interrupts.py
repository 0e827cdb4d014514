"""Ctrl-C while a command starts: it ends at once, whatever is being imported or compiled.

Where Python raises KeyboardInterrupt may be within an import of C++, which makes another error of
it or aborts. Only modules of Python's own are imported here, since they come before all else.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import Any

_sockets: list[socket.socket] = []
_ending = threading.Lock()


def end_at_once() -> None:
    """Lets Ctrl-C end this process, with exit code 130; for a process that is one command.

    Where Ctrl-C is ignored (`nohup`, `&` in a script) it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))


def hold_back() -> None:
    """Keeps Ctrl-C waiting for the `end_at_once` of the program that takes this one's place."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))


def listen() -> None:
    """Lets it end this process even while the compiler works; after the last fork."""
    if signal.getsignal(signal.SIGINT) is not _end:
        return
    ours, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    _sockets[:] = ours, wakeup
    # Python writes each signal's number there the moment that it comes.
    signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(ours,), name="avt-interrupt", daemon=True).start()


def raise_again() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt: for commands that tidy up."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _wait(ours: socket.socket) -> None:
    while received := ours.recv(1):
        if received[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is _end:
            _end(signal.SIGINT, None)


def _end(number: int, _frame: Any) -> None:
    # The thread and the main one may both come here.
    if not _ending.acquire(blocking=False):
        return
    # `print` may be what was interrupted.
    os.write(2, b"avt: interrupted\n")
    os._exit(128 + number)
