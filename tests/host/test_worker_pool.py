"""Worker processes: order, memory, what dies, what hangs, what raises."""

import itertools
import multiprocessing
import os

import pytest
from media_files import square_or_die_at_three, square_or_hang_at_three, square_or_raise_at_three

from avt_jax.errors import UserError
from avt_jax.host import worker_pool


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_dying_worker_costs_one_input(num_workers):
    results = list(
        worker_pool.ordered_map(square_or_die_at_three, range(9), num_workers=num_workers)
    )
    assert [item for item, _ in results] == list(range(9))
    assert isinstance(results[3][1], worker_pool.WorkerDied) and "SIGKILL" in str(results[3][1])
    assert [r for i, r in results if i != 3] == [i * i for i in range(9) if i != 3]


def test_a_hanging_worker_is_killed_and_the_others_go_on():
    results = list(
        worker_pool.ordered_map(
            square_or_hang_at_three, range(9), num_workers=2, time_limit_sec=1.0
        )
    )
    assert [item for item, _ in results] == list(range(9))
    assert isinstance(results[3][1], worker_pool.TimedOut) and "1 s" in str(results[3][1])
    assert [r for i, r in results if i != 3] == [i * i for i in range(9) if i != 3]


def test_errors_come_out_in_order_and_nothing_is_left_running():
    results = worker_pool.ordered_map(square_or_raise_at_three, range(100), num_workers=2)
    assert [result for _, result in itertools.islice(results, 3)] == [0, 1, 4]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert not multiprocessing.active_children()


def test_an_error_of_the_inputs_reaches_the_caller():
    def numbers():
        yield 1
        raise KeyError("lost")

    results = worker_pool.ordered_map(abs, numbers(), num_workers=1)
    with pytest.raises(KeyError, match="lost"):
        list(results)


def test_few_inputs_are_under_way_at_a_time():
    taken = []

    def numbers():
        for number in range(100):
            taken.append(number)
            yield number

    results = worker_pool.ordered_map(abs, numbers(), num_workers=1)
    next(results)
    assert len(taken) <= 4
    results.close()


def test_no_inputs():
    assert list(worker_pool.ordered_map(abs, [], num_workers=2)) == []


def test_workers_compute_with_one_thread_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    names = ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"]
    results = [value for _, value in worker_pool.ordered_map(os.getenv, names, num_workers=1)]
    assert results == ["1", "3"]
    assert [os.environ.get(name) for name in names] == [None, "3"]


def test_without_workers_this_process_does_the_work():
    results = list(worker_pool.ordered_map(own_process, range(3), num_workers=0))
    assert results == [(number, os.getpid()) for number in range(3)]
    [(_, other)] = worker_pool.ordered_map(own_process, [0], num_workers=None)
    assert other != os.getpid()


def own_process(number):
    return os.getpid()


def test_never_more_processes_than_inputs(monkeypatch):
    asked = []
    pool = worker_pool.pebble.ProcessPool
    monkeypatch.setattr(
        worker_pool.pebble,
        "ProcessPool",
        lambda number, **options: (asked.append(number), pool(number, **options))[1],
    )
    assert list(worker_pool.ordered_map(abs, [-1, -2], num_workers=9)) == [(-1, 1), (-2, 2)]
    assert asked == [2]


def test_a_negative_number_of_workers_is_refused():
    with pytest.raises(UserError, match="num_workers is -1; give 0 or more"):
        next(worker_pool.ordered_map(abs, [1], num_workers=-1))
