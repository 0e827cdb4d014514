"""Where the time of a step goes, on a clock that only what is timed moves."""

from types import SimpleNamespace

import numpy as np
import pytest
from toy_run import Counter, counting_step, every, logged, run

from avt_jax.training.observing import clock as clocks
from avt_jax.training.observing import progress

SPLIT = ("wait_data_sec", "host_sec", "device_sec")


@pytest.fixture
def clock(monkeypatch):
    found = SimpleNamespace(now=50.0)
    for module in (clocks, progress):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


class Late:
    """A loss that the device has not computed yet: to read it takes `seconds`."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def __array__(self, dtype=None, copy=None):
        self.clock.now += self.seconds
        return np.array(1.5, dtype)


def toy(clock, *, data, host, device, first=0.0):
    """(batches, state, step) of which each takes so many seconds; the first step `first` more."""

    class Slow(Counter):
        def __next__(self):
            clock.now += data
            return super().__next__()

    state, step = counting_step()

    def slow(state, batch, key):
        clock.now += host + (first if int(state.step) == 0 else 0)
        state, _ = step(state, batch, key)
        return state, {"loss": (Late(clock, device), 1.0)}

    return Slow(), state, slow


def split(entry):
    return tuple(entry[name] for name in SPLIT)


def test_the_parts_sum_to_a_step_without_compiling_evaluating_and_saving(tmp_path, clock):
    batches, state, step = toy(clock, data=1.0, host=0.25, device=2.0, first=500.0)

    def evaluate(state, asked):
        clock.now += 1000.0
        return {"top1/label": 0.5}, 0.5

    schedule = every(7, log=2, evaluate=3, checkpoint=0)
    run(tmp_path, state, step, schedule=schedule, evaluate=evaluate, batches=batches)
    entries = logged(tmp_path, "train")
    assert [entry["step"] for entry in entries] == [2, 4, 6, 7]
    for entry in entries:
        assert split(entry) == pytest.approx((1.0, 0.25, 2.0))


def test_a_line_after_the_first_step_alone_has_no_split(tmp_path, clock):
    batches, state, step = toy(clock, data=1.0, host=0.25, device=2.0)
    run(tmp_path, state, step, schedule=every(2, log=1), batches=batches)
    first, second = logged(tmp_path, "train")
    assert not {*SPLIT, "clips_per_sec"} & first.keys()
    assert {*SPLIT, "clips_per_sec"} < second.keys()


@pytest.mark.parametrize(("data", "says"), [(0.9, 0), (1.1, 1)], ids=["a little", "much"])
def test_much_waiting_for_data_is_said_once(tmp_path, clock, capsys, data, says):
    batches, state, step = toy(clock, data=data, host=1.0, device=2.0)
    run(tmp_path, state, step, schedule=every(40, log=5, evaluate=40), batches=batches)
    err = capsys.readouterr().err
    assert err.count("avt inspect SHARDS --probe") == says
    share = f"{data / (data + 3):.0%}"
    assert f"{share} waiting for data" in err
    assert (f"wait for data for {share} of their time" in err) == bool(says)


def test_few_steps_say_nothing_of_the_data(tmp_path, clock, capsys):
    batches, state, step = toy(clock, data=9.0, host=1.0, device=0.0)
    run(tmp_path, state, step, schedule=every(9, log=5, evaluate=9), batches=batches)
    assert "90% waiting for data" in (err := capsys.readouterr().err) and "--probe" not in err
