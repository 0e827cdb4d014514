"""The loop on a toy step: schedule, logging, non-finite losses, stopping on a signal."""

import gc
import io
import os
import signal
import sys
from types import SimpleNamespace

import pytest
from toy_run import checkpoints, counting_step, every, logged, run

from avt_jax.errors import UserError
from avt_jax.host import collecting
from avt_jax.training.checkpoint import Checkpointer
from avt_jax.training.observing import progress
from avt_jax.training.writer import MetricWriter


def test_logs_evaluates_and_checkpoints_when_due(tmp_path, capsys):
    state = run(tmp_path, *counting_step(), schedule=every(6))
    assert int(state.step) == 6 and float(state.params["w"]) == 1 + 2 + 3 + 4 + 5 + 6
    assert checkpoints(tmp_path) == [3, 4, 6]
    train = [(e["step"], e["loss"]) for e in logged(tmp_path, "train")]
    assert train == [(2, 1.5), (4, 3.5), (6, 5.5)], "means over the steps since the last line"
    assert [e["step"] for e in logged(tmp_path, "val")] == [4, 6]
    assert all(e["damaged"] == 2 for e in logged(tmp_path, "train"))
    err = capsys.readouterr().err
    assert "2 damaged records passed over" in err
    assert "step 4/6: validation top1/label 0.500" in err


@pytest.mark.parametrize(
    ("intervals", "logs", "evaluations", "saved"),
    [
        (dict(log=3, evaluate=5, checkpoint=0), [3, 6, 7], [5, 7], [5, 7]),
        (dict(log=9, evaluate=9, checkpoint=2), [7], [7], [2, 4, 6, 7]),
        (dict(log=1, evaluate=7, checkpoint=9), [1, 2, 3, 4, 5, 6, 7], [7], [7]),
    ],
    ids=["evaluations only", "longer than the training", "every step"],
)
def test_the_final_step_is_always_looked_at(tmp_path, intervals, logs, evaluations, saved):
    seen = []

    def evaluate(state, asked):
        seen.append(int(state.step))
        return {"top1/label": 0.25}, 0.25

    run(tmp_path, *counting_step(), schedule=every(7, **intervals), evaluate=evaluate)
    entries = logged(tmp_path, "train")
    assert [e["step"] for e in entries] == logs
    assert seen == [e["step"] for e in logged(tmp_path, "val")] == evaluations
    assert checkpoints(tmp_path) == saved
    # Every step is in one mean: batch n has the loss n.
    bounds = [0, *logs]
    for entry, first, last in zip(entries, bounds, logs, strict=False):
        number = last - first
        assert entry["loss"] == sum(range(first + 1, last + 1)) / number
        assert entry["classification"] == entry["loss"], "a sum of 8 clips over their count"


def test_what_is_logged_outlives_the_machine_before_the_checkpoint_does(tmp_path, monkeypatch):
    """Of a file that is open, a mounted bucket has what was there when it was last synced."""
    synced, at_save = [], []
    sync, save = MetricWriter.sync, Checkpointer.save

    def note_sync(writer):
        sync(writer)
        synced[:] = [
            (split, e["step"]) for split in ("train", "val") for e in logged(tmp_path, split)
        ]

    def note_save(checkpointer, state, *arguments, **options):
        at_save.append((int(state.step), list(synced)))
        save(checkpointer, state, *arguments, **options)

    monkeypatch.setattr(MetricWriter, "sync", note_sync)
    monkeypatch.setattr(Checkpointer, "save", note_save)
    run(tmp_path, *counting_step(), schedule=every(6, log=1, evaluate=6, checkpoint=2))
    lines = [("train", step) for step in range(1, 7)]
    assert at_save == [(2, lines[:2]), (4, lines[:4]), (6, [*lines, ("val", 6)])]


def test_the_rate_leaves_out_what_evaluations_take(tmp_path, monkeypatch, capsys):
    """On a clock that only steps (2 s) and evaluations (1000 s) move."""
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    state, step = counting_step()

    def slow_step(*arguments):
        clock.now += 2.0
        return step(*arguments)

    def evaluate(state, asked):
        clock.now += 1000.0
        return {"top1/label": 0.5}, 0.5

    # Evaluations fall on log entries (6) and between them (3).
    schedule = every(6, log=2, evaluate=3, checkpoint=0)
    run(tmp_path, state, slow_step, schedule=schedule, evaluate=evaluate)
    rates = [entry["clips_per_sec"] for entry in logged(tmp_path, "train")]
    assert rates == [pytest.approx(8 / 2)] * 3
    lines = [line for line in capsys.readouterr().err.splitlines() if "clips/s" in line]
    assert [line.split(", ")[-1] for line in lines] == ["0:08 left", "0:04 left", "0:00 left"]
    assert lines[0].startswith("step 2/6: loss 1.500, 4.0 clips/s, 2 damaged")


def test_time_left_is_that_of_steps_which_compile_nothing(tmp_path, monkeypatch, capsys):
    """On a clock that the first step moves by 1000 s, and each other one by 2 s."""
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    state, step = counting_step()

    def compiling_step(state, batch, key):
        clock.now += 2.0 if int(state.step) else 1000.0
        return step(state, batch, key)

    schedule = every(5, log=2, evaluate=5)
    run(tmp_path, state, compiling_step, schedule=schedule)
    assert [entry["clips_per_sec"] for entry in logged(tmp_path, "train")] == [4.0] * 3
    lines = [line for line in capsys.readouterr().err.splitlines() if "loss" in line]
    assert [line.split(", ")[-1] for line in lines] == ["0:06 left", "0:02 left", "0:00 left"]


def test_the_first_step_ends_what_a_command_puts_off_at_its_start(tmp_path):
    collecting.hold()
    try:
        run(tmp_path, *counting_step(), schedule=every(1))
        assert gc.isenabled()
    finally:
        collecting.resume()
        gc.unfreeze()


def test_the_first_step_alone_tells_no_rate(tmp_path, capsys):
    run(tmp_path, *counting_step(), schedule=every(2, log=1))
    first, second = (line for line in capsys.readouterr().err.splitlines() if "loss" in line)
    assert first == "step 1/2: loss 1.000, 2 damaged records passed over"
    assert "clips/s" in second and second.endswith("0:00 left")


def test_on_a_terminal_one_line_moves(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    run(tmp_path, *counting_step(), schedule=every(6, evaluate=6))
    moving, whole = terminal.getvalue().rsplit("\r", 1)[-1], terminal.getvalue()
    assert "6/6" in moving and "loss 5.500" in moving and "2 damaged" in moving
    lines = [line for line in whole.splitlines() if "validation" in line]
    assert lines == ["step 6/6: validation top1/label 0.500"]
    assert "left" not in whole, "the lines for files are not for terminals"


def test_a_training_that_is_over_does_nothing(tmp_path):
    state, step = counting_step()
    over = run(tmp_path, state, step, schedule=every(2))
    again = run(tmp_path, over, step, schedule=every(2))
    assert int(again.step) == 2 and float(again.params["w"]) == 3
    assert [e["step"] for e in logged(tmp_path, "train")] == [2]


@pytest.mark.parametrize("bad_step", [3, 5, 6])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, bad_step):
    with pytest.raises(UserError, match=rf"step {bad_step}: classification, loss is not finite"):
        run(tmp_path, *counting_step(bad_step), schedule=every(6))
    assert all(step < bad_step for step in checkpoints(tmp_path)), "only good checkpoints are kept"


def test_sigterm_saves_a_checkpoint_and_stops(tmp_path):
    def evaluate(state, asked):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"top1/label": 0.5}, 0.5

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *counting_step(), schedule=every(6), evaluate=evaluate)
    assert checkpoints(tmp_path) == [3, 4]
    assert signal.getsignal(signal.SIGTERM) == handler


def test_ctrl_c_between_evaluations_stops_without_one(tmp_path, capsys):
    state, step = counting_step()

    def interrupted(state, batch, key):
        if int(state.step) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(state, batch, key)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, state, interrupted, schedule=every(6))
    assert checkpoints(tmp_path) == [2] and logged(tmp_path, "val") == []
    assert "stopped at step 2, checkpoint saved" in capsys.readouterr().err
