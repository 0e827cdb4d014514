"""Goodput over starts that end well, that lose steps, and that are killed at any moment."""

import json
from types import SimpleNamespace

import pytest
from toy_run import counting_step, every, logged, restored, run

from avt_jax.training.observing import clock, goodput, progress
from avt_jax.training.observing.goodput import GOODPUT_FILE, Goodput
from avt_jax.training.observing.watch import Watch


@pytest.fixture
def now(monkeypatch):
    """One time for all clocks."""
    found = SimpleNamespace(sec=1e9)
    fake = SimpleNamespace(monotonic=lambda: found.sec, time=lambda: found.sec)
    for module in (clock, goodput, progress):
        monkeypatch.setattr(module, "time", fake)
    return found


class Killed(BaseException):
    """In the place of a signal that no process survives."""


def start(folder, now, *, total, dies_after=None):
    """A start that takes 20 s, then 2 s a step (the first one 100 s); nothing else takes time."""
    began_sec = now.sec
    now.sec += 20
    fresh, step = counting_step()
    found = restored(folder, fresh)
    state = found[0] if found else fresh
    first = int(state.step) + 1

    def timed(state, batch, key):
        number = int(state.step) + 1
        if dies_after is not None and number > dies_after:
            raise Killed
        now.sec += 100 if number == first else 2
        return step(state, batch, key)

    watch = Watch(goodput=Goodput(folder, step=first - 1, began_sec=began_sec))
    schedule = every(total, log=1, evaluate=4, checkpoint=0)
    try:
        run(folder, state, timed, schedule=schedule, watch=watch)
    finally:
        watch.close()


def test_one_start(tmp_path, now, capsys):
    start(tmp_path, now, total=8)
    share = 7 * 2 / (20 + 100 + 7 * 2)
    assert logged(tmp_path, "train")[-1]["goodput"] == pytest.approx(share)
    assert f"goodput {share:.2f} over 1 start\n" in capsys.readouterr().err


def test_lost_steps_and_pauses_do_not_count(tmp_path, now, capsys):
    with pytest.raises(Killed):
        start(tmp_path, now, total=12, dies_after=7)  # saved after 4
    now.sec += 1000
    start(tmp_path, now, total=12)
    # Of the first start steps 2 to 4, of the second 6 to 12; 5 to 7 were lost, 5 compiled again.
    passed = (20 + 100 + 6 * 2) + 1000 + (20 + 100 + 7 * 2)
    share = (3 + 7) * 2 / passed
    assert logged(tmp_path, "train")[-1]["goodput"] == pytest.approx(share)
    assert f"goodput {share:.2f} over 2 starts\n" in capsys.readouterr().err


def test_a_start_that_saved_nothing_is_only_a_loss(tmp_path, now):
    with pytest.raises(Killed):
        start(tmp_path, now, total=4, dies_after=2)
    start(tmp_path, now, total=4)
    passed = (20 + 100 + 2) + (20 + 100 + 3 * 2)
    assert logged(tmp_path, "train")[-1]["goodput"] == pytest.approx(3 * 2 / passed)


def test_a_file_cut_off_anywhere_is_read(tmp_path, now):
    """What was told of saved steps stays; a line that is cut off is no line."""
    path = tmp_path / GOODPUT_FILE
    one = Goodput(tmp_path, step=0, began_sec=now.sec)
    for step in (2, 4):
        now.sec += 10
        one.saves(step, 3.0 * step)
    one.close()
    whole = path.read_bytes()
    now.sec += 10
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        lines = [json.loads(line) for line in whole[: length + 1].splitlines() if _is_whole(line)]
        again = Goodput(tmp_path, step=4, began_sec=now.sec - 5)
        useful = max([line.get("useful_sec", 0.0) for line in lines], default=0.0)
        has_first = any("began_sec" in line for line in lines)
        # At the very end of a line its break alone may be missing.
        if whole[:length].count(b"\n") == len(lines):
            assert again.share(0.0) == pytest.approx(min(1, useful / (30 if has_first else 5)))
            assert again.starts == 1 + has_first
        again.saves(6, 1.0)
        again.close()
        assert all(_is_whole(line) for line in path.read_bytes().splitlines())


def _is_whole(line):
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def test_lines_of_others_are_passed_over(tmp_path, now):
    (tmp_path / GOODPUT_FILE).write_text(
        'nothing\n[1]\n{"step": "x"}\n{"step": 1, "useful_sec": null}\n'
    )
    one = Goodput(tmp_path, step=3, began_sec=now.sec - 10)
    one.close()
    assert one.starts == 1 and one.share(5.0) == pytest.approx(0.5)
