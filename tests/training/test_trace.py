"""A trace of some steps: which ones, what is said, what is refused."""

import jax
import pytest
from toy_run import counting_step, every, logged, run

from avt_jax.cli import train as command
from avt_jax.errors import UserError
from avt_jax.training.observing.trace import Trace
from avt_jax.training.observing.watch import Watch
from avt_jax.training.processes import stop

SMOKE = ("--config", "quickstart:smoke", "--config.train.steps=4", "--distributed=off")


@pytest.fixture(autouse=True)
def not_ours(monkeypatch):
    """The command says that its process is its own; this one is not."""
    monkeypatch.setattr(stop, "this_process_is_ours", lambda: None)


@pytest.fixture
def calls(monkeypatch):
    """What is asked of JAX's profiler, in order."""
    found = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: found.append(("start", folder)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: found.append(("stop",)))
    return found


def traced(tmp_path, first, last, total, calls):
    """Trains with a toy step that notes its numbers among the calls."""
    state, step = counting_step()

    def noted(state, batch, key):
        calls.append(int(state.step) + 1)
        return step(state, batch, key)

    watch = Watch(trace=Trace(first, last, tmp_path / "there", total_steps=total))
    run(tmp_path, state, noted, schedule=every(total), watch=watch)


@pytest.mark.parametrize(("first", "last"), [(1, 1), (2, 3), (5, 6)])
def test_the_steps_asked_for_are_in_it(tmp_path, capsys, calls, first, last):
    traced(tmp_path, first, last, 6, calls)
    expected = list(range(1, 7))
    expected.insert(last, ("stop",))
    expected.insert(first - 1, ("start", tmp_path / "there"))
    assert calls == expected
    err = capsys.readouterr().err
    assert f"the trace of steps {first} to {last} is in {tmp_path / 'there'}" in err
    assert f"xprof --logdir {tmp_path / 'there'}" in err


def test_a_training_that_stops_within_ends_its_trace(tmp_path, calls):
    watch = Watch(trace=Trace(2, 6, tmp_path / "there", total_steps=6))
    with pytest.raises(UserError, match="step 3"):
        run(tmp_path, *counting_step(bad_step=3), schedule=every(6), watch=watch)
    assert calls == [("start", tmp_path / "there")]
    watch.close()
    watch.close()
    assert calls[1:] == [("stop",)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10", "'10' is not FIRST:LAST"),
        ("3:b", "'3:b' is not FIRST:LAST"),
        ("-1:2", "'-1:2' is not FIRST:LAST"),
        ("0:2", "0:2: give the first and the last step"),
        ("3:2", "3:2: give the first and the last step"),
        ("3:5", "3:5: the training ends with step 4"),
    ],
)
def test_other_steps_are_refused_before_anything_is_written(tmp_path, text, message):
    folder = tmp_path / "run"
    with pytest.raises(UserError, match=message):
        command.main([*SMOKE, "--workdir", str(folder), f"--profile-steps={text}"])
    assert not folder.exists()


def test_a_folder_alone_is_refused(tmp_path):
    with pytest.raises(UserError, match="--profile-dir is of no use without --profile-steps"):
        command.main([*SMOKE, "--workdir", str(tmp_path / "run"), "--profile-dir", str(tmp_path)])


def test_a_folder_that_cannot_be_made_is_named(tmp_path, calls):
    (tmp_path / "file").write_text("")
    trace = Trace(1, 1, tmp_path / "file" / "in", total_steps=1)
    with pytest.raises(UserError, match="--profile-dir .*/file/in"):
        trace.begins(1)
    assert calls == []


def test_the_command_writes_one_and_a_continued_run_says_that_it_is_over(tmp_path, capsys):
    words = [*SMOKE, "--workdir", str(tmp_path / "run"), "--profile-steps", "2:3"]
    assert command.main(words) == 0
    assert "the trace of steps 2 to 3 is in" in capsys.readouterr().err
    assert len(list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))) == 1
    assert logged(tmp_path / "run", "train")
    assert command.main([*words, "--config.train.steps=5"]) == 0
    assert "steps 2 to 3 are done already" in capsys.readouterr().out
    assert len(list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))) == 1
