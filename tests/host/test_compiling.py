"""What is said of compiling, and how long it took is remembered by all processes."""

import io
import json
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from avt_jax.host import compiling as module
from avt_jax.host.compiling import Compiling, compiling, last_sec, remember


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def clock(monkeypatch):
    found = SimpleNamespace(now=50.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


def start(clock, what, seconds):
    said = []
    with compiling(what, said.append):
        clock.now += seconds
    return said


def test_the_next_start_says_how_long_it_took(clock):
    assert start(clock, {"dim": 64}, 18.2) == ["compiling", "compiled in 18.2 s"]
    assert start(clock, {"dim": 32}, 3.0) == ["compiling", "compiled in 3.0 s"]
    assert start(clock, {"dim": 64}, 0.2) == ["compiling (18 s last time)", "compiled in 0.2 s"]
    assert start(clock, {"dim": 64}, 1.0)[0] == "compiling (1 s last time)", "never 0 s"


def test_that_the_first_time_is_longest_is_said_only_where_programs_are_kept(clock, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/somewhere")
    assert start(clock, "a", 1.0)[0] == "compiling (the first time takes longest)"
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
    assert start(clock, "b", 1.0)[0] == "compiling"


def test_parts_add_up_and_what_is_between_them_does_not(clock):
    said = []
    parts = Compiling("a", said.append)
    for seconds in (2.0, 3.0):
        with parts:
            clock.now += seconds
        clock.now += 100.0
    parts.done()
    assert said == ["compiling", "compiled in 5.0 s"]
    assert last_sec(module.fingerprint("a")) == 5.0


def test_what_fails_is_not_done(clock):
    said = []
    with pytest.raises(ZeroDivisionError), compiling("a", said.append):
        1 / 0  # noqa: B018
    assert said == ["compiling"] and last_sec(module.fingerprint("a")) is None


def test_nobody_to_tell_is_no_reason_to_write(clock, cache):
    with compiling("a", None):
        pass
    assert not cache.exists()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def wait_for(condition):
    """The thread that shows it has its own time."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("nothing was shown")


def test_where_no_terminal_is_a_line_says_that_it_goes_on(monkeypatch):
    monkeypatch.setattr(module, "_LINE_EVERY_SEC", 0.01)
    said = []
    with compiling("a", said.append):
        wait_for(lambda: len(said) > 1)
    assert said[1] == "still compiling, 0 s so far" and said[-1].startswith("compiled in")
    number = threading.active_count()
    said.clear()
    time.sleep(0.05)
    assert not said and number == threading.active_count(), "the thread goes on"


def test_a_terminal_shows_the_seconds_and_is_left_clean(monkeypatch):
    monkeypatch.setattr(module, "_SPIN_EVERY_SEC", 0.01)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with compiling("a", lambda line: print(line, file=sys.stderr)):
        wait_for(lambda: "/ compiling, 0 s" in terminal.getvalue())
    last = terminal.getvalue().splitlines()[-1]
    assert last.startswith("compiled in") and "|" not in last


def test_the_file_is_bounded_and_forgets_the_oldest(monkeypatch):
    monkeypatch.setattr(module, "_MAX_PROGRAMS", 3)
    for name in "abcadc":
        remember(name, ord(name) - 96)
    assert [last_sec(name) for name in "abcd"] == [1, None, 3, 4]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        "3",
        '["a"]',
        "[" * 100_000,
        '{"a": "1"}',
        '{"a": null}',
        '{"a": -1}',
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": 1e30}',
        '{"a": ' + "9" * 500 + "}",
        '{"a": 1, "b": "' + "x" * 70_000 + '"}',
        b"\xff\xfe",
    ],
)
def test_a_file_that_is_none_of_ours_is_passed_over_and_replaced(cache, content):
    cache.mkdir()
    file = cache / "compile-seconds.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert last_sec("a") is None
    remember("a", 2.0)
    assert json.loads(file.read_text()) == {"a": 2.0}


def test_no_folder_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AVT_CACHE", str(tmp_path / "file"))
    remember("a", 1.0)
    assert last_sec("a") is None


REMEMBER = """
import sys
from avt_jax.host.compiling import remember
for i in range(10):
    remember(f"{sys.argv[1]}-{i}", 1.0)
"""


def test_processes_that_end_together_lose_nothing(cache):
    processes = [subprocess.Popen([sys.executable, "-c", REMEMBER, str(n)]) for n in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(json.loads((cache / "compile-seconds.json").read_text())) == 30
