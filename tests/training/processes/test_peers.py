"""The watch over other processes, with a stand-in for JAX's coordination service."""

import threading
import time

import pytest

from avt_jax.training.processes import peers


class Service:
    """Keeps what is told to it."""

    def __init__(self):
        self.kept, self.is_down = {}, False

    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite
        if self.is_down:
            raise RuntimeError("UNAVAILABLE: no connection")
        self.kept[key] = value

    def key_value_dir_get(self, folder):
        if self.is_down:
            raise RuntimeError("UNAVAILABLE: no connection")
        return [(key, value) for key, value in self.kept.items() if key.startswith(folder)]


@pytest.fixture
def watch(monkeypatch):
    """(service, how to start a process's watch, what ended processes said)."""
    monkeypatch.setattr(peers, "_BEAT_SEC", 0.02)
    service, said, started = Service(), [], []

    def start(index, count=2, timeout_sec=0.3):
        one = peers._Watch(service, index, count, timeout_sec)

        def end(why):
            if not one.ended.is_set():
                one.ended.set()
                said.append((index, why))

        one.end = end
        one.start()
        started.append(one)
        return one

    yield service, start, said
    for one in started:
        one.ended.set()
        one.join()


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_all_is_well_while_all_tell(watch):
    service, start, said = watch
    both = [start(0), start(1)]
    wait_for(lambda: len(service.kept) == 2)
    time.sleep(1)  # three times as long as a silent one would have
    assert said == [] and all(one.is_alive() for one in both)


def test_one_that_is_silent_is_named_with_what_it_did(watch):
    _, start, said = watch
    start(0)
    other = start(1)
    other.what = "in step 7"
    time.sleep(0.1)
    other.ended.set()  # as if it were killed: it says nothing more
    wait_for(lambda: said)
    ((index, why),) = said
    assert index == 0 and why.startswith("process 1 of 2 on ")
    assert "it died or hangs (at last in step 7)" in why


def test_one_that_never_came_is_named(watch):
    _, start, said = watch
    start(0, count=3)
    wait_for(lambda: said)
    assert said[0][1].startswith("process 1 of 3 has not been heard of")


def test_one_that_failed_is_named_with_its_reason(watch):
    _, start, said = watch
    start(0, timeout_sec=60)
    other = start(1, timeout_sec=60)
    other.say("failed", "shards/a.array_record cannot be read")
    wait_for(lambda: said)
    assert "process 1 of 2" in said[0][1]
    assert said[0][1].endswith("has failed: shards/a.array_record cannot be read")


def test_one_that_is_done_is_not_missed(watch):
    _, start, said = watch
    start(0)
    start(1).say("done", "")
    time.sleep(1)
    assert said == []


def test_without_the_service_the_first_process_is_named(watch):
    service, start, said = watch
    start(1)
    time.sleep(0.1)
    service.is_down = True
    wait_for(lambda: said)
    assert said[0][1].startswith("process 0 of 2 does not answer")


def test_an_error_that_is_not_of_a_connection_is_not_taken_for_one(monkeypatch):
    monkeypatch.setattr(peers, "_current", object())
    assert not peers.lost(ValueError("shapes differ"))
    monkeypatch.setattr(peers, "_current", None)
    assert not peers.lost(RuntimeError("Connection closed by peer"))


def test_alone_nothing_is_watched():
    before = threading.active_count()
    peers.watch(0, 1, timeout_sec=5)
    peers.doing("in step 1")
    peers.failed("for some reason")
    peers.stop_watching()
    assert threading.active_count() == before
