"""Stays beside a process of a job, to say how it ended when it cannot say so itself.

JAX aborts a process, with a trace of C++, when the first one of its job dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

from avt_jax.host.output.terminal import show

# It loads no JAX.
from avt_jax.training.processes.peers import EXIT_CODE

_PR_SET_PDEATHSIG = 1


def supervise() -> int | None:
    """Goes on in a child process; before JAX is loaded.

    Signals are handed on to the child, which ends when this process is killed.

    Returns:
      None in the child; in this process, when the child has ended, the exit code.
    """
    parent = os.getpid()
    child = os.fork()
    if not child:
        # A group of its own: Ctrl-C on a terminal comes once, by way of the parent.
        os.setpgid(0, 0)
        _die_with(parent)
        return None

    def hand_on(number: int, _frame: Any) -> None:
        os.kill(child, number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, hand_on)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    if -code in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS):
        _say(
            f"JAX ended this process ({signal.Signals(-code).name}), most likely since process 0 "
            "of the job has died, or not all processes came within --join-timeout. Start all "
            "again, a training goes on from its last checkpoint"
        )
        return EXIT_CODE
    if -code == signal.SIGKILL:
        _say("this process was killed, perhaps for its memory; start all of the job again")
    return 128 - code


def _say(text: str) -> None:
    show(f"avt: error: {text}.", file=sys.stderr, flush=True)


def _die_with(parent: int) -> None:
    """On Linux."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:  # it has died already
        os._exit(128 + signal.SIGKILL)
