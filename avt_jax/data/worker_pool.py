"""Runs a function over many inputs in processes that may die, and keeps the order."""

from __future__ import annotations

import collections
import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any


class WorkerDied(Exception):
    """The process that worked on an input ended without an answer (crash, out of memory)."""


def default_num_workers() -> int:
    """Number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[Any], Any], inputs: Iterable[Any], *, num_workers: int
) -> Iterator[tuple[Any, Any]]:
    """Applies `function` in other processes; yields results in the order of the inputs.

    At most four inputs per worker are under way or waiting to be fetched, so memory stays bounded
    however many inputs there are. When a worker dies, all inputs under way are tried again one at a
    time, each in a process of its own, to find out which one is to blame.

    Args:
      function: importable by name, so that a fresh process can find it.
      inputs: picklable arguments.
      num_workers: >= 1.

    Yields:
      (input, result); the result is a `WorkerDied` where the input took its process down.

    Raises:
      Exception: whatever `function` raises.
    """
    remaining = iter(inputs)
    pending: collections.deque[tuple[Any, concurrent.futures.Future]] = collections.deque()
    pool = _new_pool(num_workers)
    try:
        while True:
            for item in remaining:
                pending.append((item, _submit(pool, function, item)))
                if len(pending) >= 4 * num_workers:
                    break
            if not pending:
                return
            try:
                result = pending[0][1].result()
            except BrokenProcessPool:
                pool.shutdown(wait=True, cancel_futures=True)
                suspects = list(pending)
                pending.clear()
                for item, future in suspects:
                    yield item, _finished_or_alone(function, item, future)
                pool = _new_pool(num_workers)
                continue
            yield pending.popleft()[0], result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _new_pool(num_workers: int) -> concurrent.futures.ProcessPoolExecutor:
    return concurrent.futures.ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("spawn"), initializer=guard_worker
    )


def guard_worker() -> None:
    """Call first in a worker process: it then lives exactly as long as its parent."""
    # Ctrl-C reaches every process of the group: the parent alone says what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Ends this process when the parent is gone; a killed parent could not have told it to."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _submit(
    pool: concurrent.futures.Executor, function: Callable, item: Any
) -> concurrent.futures.Future:
    try:
        return pool.submit(function, item)
    except BrokenProcessPool as error:
        # The pool broke since the last answer; the caller learns it from the future as usual.
        future: concurrent.futures.Future = concurrent.futures.Future()
        future.set_exception(error)
        return future


def _finished_or_alone(function: Callable, item: Any, future: concurrent.futures.Future) -> Any:
    if future.done() and not future.cancelled() and future.exception() is None:
        return future.result()
    with _new_pool(1) as pool:
        try:
            return pool.submit(function, item).result()
        except BrokenProcessPool as error:
            return WorkerDied(f"the process that decoded it ended without an answer ({error})")
