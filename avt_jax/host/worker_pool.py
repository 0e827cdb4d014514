"""Runs a function over many inputs in processes that may die or hang, and keeps the order."""

from __future__ import annotations

import collections
import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from typing import Any

import pebble

from avt_jax.errors import UserError

# What the usual builds of NumPy and its like read when they are loaded.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerDied(Exception):
    """The process that worked on an input ended without an answer (crash, out of memory)."""


class TimedOut(Exception):
    """An input took longer than its time limit; the process that worked on it was killed."""


def default_num_workers() -> int:
    """Number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[Any], Any],
    inputs: Iterable[Any],
    *,
    num_workers: int | None = None,
    time_limit_sec: float | None = None,
    num_ahead: int = 4,
) -> Generator[tuple[Any, Any], None, None]:
    """Applies `function` in other processes; yields results in the order of the inputs.

    There are never more processes than inputs where their number is known, for starting one takes a
    second or two.

    Args:
      function: importable by name, so that a fresh process can find it. A TimeoutError of its own
        cannot be told from the time limit.
      inputs: picklable arguments.
      num_workers: processes; None is one per core, 0 none but this one, which then does without
        time limits and dies of what kills it.
      time_limit_sec: > 0, how long one input may take before its process is killed; None is for
        ever. The start of a process does not count.
      num_ahead: >= 1; as many inputs per worker are under way or waiting to be fetched, so memory
        stays bounded however many inputs there are.

    Yields:
      (input, result); the result is a `WorkerDied` where the input took its process down, a
      `TimedOut` where it took too long. The other inputs do not notice.

    Raises:
      UserError: a negative number of workers.
      Exception: whatever `function` raises.
    """
    num_workers = _checked_number(num_workers, inputs)
    if not num_workers:
        for item in inputs:
            yield item, function(item)
        return
    with _single_threaded_children():
        yield from _ordered_map(function, inputs, num_workers, time_limit_sec, num_ahead)


def _checked_number(num_workers: int | None, inputs: Iterable[Any]) -> int:
    if num_workers is None:
        num_workers = default_num_workers()
    if num_workers < 0:
        raise UserError(f"num_workers is {num_workers}; give 0 or more.")
    return min(num_workers, len(inputs)) if isinstance(inputs, Sized) else num_workers


@contextlib.contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Processes started inside compute with one thread each, unless the user has said otherwise.

    There is one process per core already. More threads wait for each other in a loop, which takes
    the time of the other processes: short clips took more than twice as long.
    """
    added = [name for name in _THREAD_VARIABLES if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _ordered_map(
    function: Callable[[Any], Any],
    inputs: Iterable[Any],
    num_workers: int,
    time_limit_sec: float | None,
    num_ahead: int,
) -> Iterator[tuple[Any, Any]]:
    remaining = iter(inputs)
    pending: collections.deque[tuple[Any, pebble.ProcessFuture[Any]]] = collections.deque()
    pool = pebble.ProcessPool(
        num_workers, initializer=guard_worker, context=multiprocessing.get_context("spawn")
    )
    try:
        while True:
            for item in itertools.islice(remaining, num_ahead * num_workers - len(pending)):
                pending.append((item, pool.schedule(function, [item], timeout=time_limit_sec)))
            if not pending:
                return
            item, future = pending.popleft()
            yield item, _result(future, time_limit_sec)
    finally:
        pool.stop()
        pool.join()


def _result(future: pebble.ProcessFuture[Any], time_limit_sec: float | None) -> Any:
    try:
        return future.result()
    except pebble.ProcessExpired as error:
        return WorkerDied(f"the process that worked on it {_ending(error.exitcode)}")
    except TimeoutError:
        return TimedOut(f"took longer than the {time_limit_sec:g} s allowed")


def _ending(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"ended with exit code {exit_code}"
    return f"was ended by {signal.Signals(-exit_code).name}"


def guard_worker(*, survives_sigterm: bool = False) -> None:
    """Call first in a worker process: it then lives exactly as long as its parent.

    Args:
      survives_sigterm: where the parent needs it to the end, and does not end it by that signal.
    """
    # Ctrl-C reaches every process of the group, as SIGTERM does where a scheduler ends a job: the
    # parent alone says what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if survives_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Ends this process when the parent is gone; a killed parent could not have told it to."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for processes that were started by another"
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
