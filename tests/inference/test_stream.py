"""Windows of many files share full batches; what is wrong with one file stays there."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from avt_jax import axes
from avt_jax.data.media.container import DecodeError
from avt_jax.data.media.probe import MediaInfo
from avt_jax.errors import UserError
from avt_jax.host.worker_pool import TimedOut, WorkerDied
from avt_jax.inference import stream
from avt_jax.inference.stream import DecodeOptions, Job, run_files


class Numbers:
    """A collector of what the model says."""

    def __init__(self):
        self.found = []

    def add(self, record, values):
        self.found.append((record["place"], float(values["x"])))

    def result(self):
        return self.found


def fake_decoder(windows, broken=None, calls=None):
    """Decodes a file "n" to examples of n * 10 + index; `broken`: {(path, index): what comes}.

    "8" is sound alone.
    """

    def decode(task):
        if calls is not None:
            calls[task.path] += 1
        if task.span is None:
            found = (broken or {}).get((task.path, None))
            seconds, has_video = float(windows[task.path]), task.path != "8"
            return found or MediaInfo(seconds, has_video, True, 8, 8, 4.0, 16000)
        if found := (broken or {}).get((task.path, task.index)):
            return found
        value = float(int(task.path) * 10 + task.index)
        example = {
            axes.VIDEO: np.zeros(1, np.uint8),
            axes.AUDIO: np.full(1, value),
            axes.HAS_AUDIO: np.bool_(True),
        }
        return {"place": (task.path, task.index)}, example

    return decode


def run(windows, *, batch_size=3, broken=None, model=None, calls=None, options=None, paths=None):
    """(results, sizes of batches, progress)."""
    batches, progress = [], []

    def default_model(batch):
        batches.append(len(batch[axes.AUDIO]))
        return {"x": batch[axes.AUDIO][:, 0] + 0.5}

    def begin(path, media):
        if path == "99":
            raise UserError("not this one")
        return [(float(i), i + 1.0) for i in range(int(media.duration_sec))], Numbers()

    job = Job(
        begin, model or default_model, batch_size, "was not done", lambda *a: progress.append(a)
    )
    decoder = fake_decoder(windows, broken, calls)
    found = run_files(paths or windows, job, decoder, options or DecodeOptions(2))
    return list(found), batches, progress


def expected(path, count):
    return [((path, i), int(path) * 10 + i + 0.5) for i in range(count)]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_files_keep_their_windows_and_their_order(batch_size):
    windows = {"3": 1, "1": 5, "2": 1, "0": 1, "7": 2}
    found, batches, progress = run(windows, batch_size=batch_size)
    assert found == [(path, expected(path, count)) for path, count in windows.items()]
    # Only the last batch may hold fewer than it can: windows of several files share one.
    assert len(batches) == -(-10 // batch_size) and set(batches) == {batch_size}
    assert {(path, done) for path, done, total in progress if done == total} == set(windows.items())


def test_what_is_wrong_with_a_file_stays_there_and_in_its_place():
    windows = {"3": 2, "1": 6, "2": 2, "99": 1, "5": 3}
    broken = {
        ("3", None): DecodeError("not_media", "3 is nothing"),
        ("1", 2): DecodeError("truncated", "1 is cut off"),
    }
    calls = Counter()
    found, _, _ = run(windows, broken=broken, calls=calls, batch_size=2)
    assert [path for path, _ in found] == list(windows)
    results = dict(found)
    assert results["2"] == expected("2", 2) and results["5"] == expected("5", 3)
    assert str(results["3"]) == "3 is nothing; it was not done."
    assert str(results["1"]) == "1 is cut off; it was not done."
    assert str(results["99"]) == "not this one"
    assert calls["3"] == calls["99"] == 1


def test_a_file_ends_where_its_pictures_do_but_not_at_its_start():
    end = DecodeError("span_past_end", "there is no more")
    broken = {("1", 3): end, ("2", 0): end, ("8", 1): end}
    found, _, progress = run({"1": 5, "2": 2, "8": 3}, broken=broken, batch_size=4)
    results = dict(found)
    assert results["1"] == expected("1", 3)
    assert str(results["2"]) == "there is no more; it was not done."
    # Where sound is all there is, its length was known: a hole is damage.
    assert str(results["8"]) == "there is no more; it was not done."
    assert ("1", 3, 5) in progress


def test_a_broken_file_is_not_decoded_to_its_end():
    calls = Counter()
    broken = {("1", 0): DecodeError("truncated", "1 is cut off")}
    run({"1": 1000, "2": 1}, broken=broken, calls=calls)
    assert calls["1"] < 20


def test_values_that_are_no_numbers_are_told_of_the_file_they_are_of():
    def model(batch):
        value_b = batch[axes.AUDIO][:, 0]
        return {"x": np.where(value_b == 21, np.nan, value_b + 0.5)}

    found, _, _ = run({"1": 2, "2": 3, "3": 1}, model=model)
    results = dict(found)
    assert results["1"] == expected("1", 2) and results["3"] == expected("3", 1)
    assert "what the model makes of 2 is not finite" in str(results["2"])


def test_files_are_opened_only_when_their_turn_comes():
    opened = []

    def paths():
        for number in range(100):
            opened.append(number)
            yield str(number)

    job = Job(
        lambda path, media: ([(0.0, 1.0)], Numbers()),
        lambda batch: {"x": batch[axes.AUDIO][:, 0]},
        2,
        "",
        lambda *a: None,
    )
    windows = {str(n): 1 for n in range(100)}
    with_end = run_files(paths(), job, fake_decoder(windows), DecodeOptions(2))
    next(with_end)
    assert len(opened) < 12
    with_end.close()


def test_a_process_that_dies_or_takes_too_long_costs_one_file(monkeypatch):
    def deadly_map(function, inputs, *, num_workers, time_limit_sec):
        assert num_workers == 4 and time_limit_sec == 9.0
        for task in inputs:
            fate = {("1", 1): WorkerDied("was ended by SIGSEGV"), ("2", 0): TimedOut("took ages")}
            is_window = task.span is not None
            yield task, fate.get((task.path, task.index) if is_window else None, function(task))

    monkeypatch.setattr(stream, "ordered_map", deadly_map)
    found, _, _ = run({"1": 3, "2": 1, "3": 2}, options=DecodeOptions(2, 4, 9.0))
    results = dict(found)
    assert str(results["1"]) == "1 cannot be decoded (was ended by SIGSEGV); it was not done."
    assert "2 cannot be decoded (took ages)" in str(results["2"])
    assert results["3"] == expected("3", 2)


def test_what_worker_processes_import_starts_no_jax():
    code = "import sys, avt_jax.inference.stream; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
