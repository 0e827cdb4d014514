"""An extraction that is ended by anything goes on where it was, and ends with the same bytes."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from media_files import write_manifest

from avt_jax.cli.common import run
from avt_jax.cli.data import extract as extract_cli
from avt_jax.data import records
from avt_jax.data.extraction import job, work_folder
from avt_jax.data.extraction.clip_record import ExtractConfig
from avt_jax.data.extraction.extract import extract
from avt_jax.data.manifests.manifest import read_manifest
from avt_jax.data.media.container import REASON_CODES
from avt_jax.errors import UserError

CONFIG = ExtractConfig(frame_rate_hz=10, short_side_px=48)

# Ends itself without warning when `function` of `module` is called for the n-th time, before or
# after it has done its work.
KILL = """
import importlib, os, signal, sys
module, function, count, when, *argv = sys.argv[1:]
module = importlib.import_module(module)
owner, name = module, function
if "." in function:
    owner, name = getattr(module, function.split(".")[0]), function.split(".")[1]
real, left = getattr(owner, name), int(count)
def deadly(*args, **kwargs):
    global left
    left -= 1
    result = None if left == 0 and when == "before" else real(*args, **kwargs)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, name, deadly)
if __name__ == "__main__":
    from avt_jax.cli.data import extract
    sys.exit(extract.main(argv))
"""


@pytest.fixture(scope="module")
def clips(videos, tmp_path_factory) -> Path:
    """A manifest of 9 clips, of which 2 fail; with three per shard, one shard stays empty."""
    rows = [
        (videos / name, start, "", label, split)
        for split, names in (("train", ("a", "b", "text", "silent")), ("val", ("text",)))
        for name, label in ((f"{name}.mp4", name[0]) for name in names)
        for start in ((0, 0.3) if split == "train" else (0,))
    ]
    folder = tmp_path_factory.mktemp("clips")
    return write_manifest(folder / "clips.csv", rows)


def arguments(clips, out, *more):
    options = {"--manifest": clips, "--out": out, "--frame-rate": 10, "--short-side": 48}
    options |= {"--clips-per-shard": 2, "--workers": 1}
    return [str(word) for pair in options.items() for word in pair] + list(more)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def uninterrupted(clips, tmp_path_factory):
    """What a run that nothing happens to writes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert extract_cli.main(arguments(clips, out)) == 0
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    return contents(out)


def run_until_killed(clips, out, module, function, count, when):
    words = [sys.executable, "-c", KILL, f"avt_jax.data.{module}", function, str(count), when]
    # This ends when nobody holds the pipes any more: decoding processes must not live on, either.
    process = subprocess.run(words + arguments(clips, out), capture_output=True, timeout=120)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert not out.exists()


def finished_shards(out):
    folder = work_folder.work_path(out)
    return len(list(folder.glob("*.part-*.json")))


@pytest.mark.parametrize(
    "kills",
    [
        # in the middle of the first shard; then of the second one, twice begun
        [("records.writer", "ShardFile.add", 2, "before", 0),
         ("records.writer", "ShardFile.add", 4, "before", 1)],
        # the data is there but not the result; then the result has just been written
        [("extraction.job", "write_json", 1, "before", 0),
         ("extraction.job", "write_json", 2, "after", 2)],
        # when a shard has moved into the result; when everything is there but the name
        [("records.writer", "write_description", 1, "before", 5),
         ("extraction.work_folder", "_write_failures", 1, "after", 5)],
    ],
    ids=["records", "results", "end"],
)  # fmt: skip
def test_killed_twice(clips, uninterrupted, tmp_path, capsys, kills):
    out = tmp_path / "out"
    for module, function, count, when, num_shards in kills:
        run_until_killed(clips, out, module, function, count, when)
        assert finished_shards(out) == num_shards
    assert extract_cli.main(arguments(clips, out)) == 0
    captured = capsys.readouterr()
    if num_shards:
        assert f"going on: {num_shards} of 5 shards are done" in captured.err
    assert contents(out) == uninterrupted
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_second_run_does_nothing(clips, uninterrupted, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    for name, data in uninterrupted.items():
        (out / name).write_bytes(data)
    # As a run that was killed between its last two steps leaves it.
    left = work_folder.work_path(out)
    left.mkdir()
    for name in ("plan.json", ".lock"):
        (left / name).touch()
    monkeypatch.setattr("avt_jax.data.extraction.extract.write_shards", None)
    assert extract_cli.main(arguments(clips, out)) == 0
    assert "all done by an earlier run" in capsys.readouterr().out
    assert contents(out) == uninterrupted
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert run(extract_cli.main, arguments(clips, out, "--short-side", "32")) == 2
    assert "short_side_px 48 instead of 32" in capsys.readouterr().err
    (out / work_folder.DONE_FILE).write_text('{"plan": {"format": 0}, "summary": {}}')
    assert run(extract_cli.main, arguments(clips, out)) == 2
    assert "another version of avt_jax" in capsys.readouterr().err


def test_another_extraction_is_not_mixed_in(clips, tmp_path, capsys):
    out = tmp_path / "out"
    run_until_killed(clips, out, "extraction.job", "write_json", 2, "before")
    before = contents(work_folder.work_path(out))
    other = write_manifest(tmp_path / "clips.csv", [("x.mp4", "", "", "a", "train")])
    for words, difference in (
        (arguments(clips, out, "--frame-rate", "5"), "frame_rate_hz 10.0 instead of 5.0"),
        (arguments(clips, out, "--clips-per-shard", "3"), "clips_per_shard 2 instead of 3"),
        (arguments(other, out), "other class lists, other clips in the manifest"),
    ):
        assert run(extract_cli.main, words) == 2
        message = capsys.readouterr().err
        assert f"{out}.incomplete holds an unfinished extraction" in message
        assert f"({difference}); delete it" in message
    assert contents(work_folder.work_path(out)) == before
    # The time limit and the number of workers are not part of what is made.
    assert run(extract_cli.main, arguments(clips, out, "--clip-timeout", "60")) == 0


def test_two_runs_do_not_share_a_folder(clips, tmp_path):
    read = read_manifest(clips)
    out = tmp_path / "out"
    work_folder.work_path(out).mkdir()
    with open(work_folder.work_path(out) / ".lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run is writing"):
            extract(read, out, config=CONFIG, num_workers=1)
    (work_folder.work_path(out) / "precious.txt").touch()
    with pytest.raises(UserError, match="holds something else"):
        extract(read, out, config=CONFIG, num_workers=1)
    assert (work_folder.work_path(out) / "precious.txt").exists()


def test_damaged_and_missing_parts_are_made_again(clips, uninterrupted, tmp_path):
    out = tmp_path / "out"
    folder = work_folder.work_path(out)
    run_until_killed(clips, out, "records.schema", "shard_names", 1, "before")
    (folder / "result").rmdir()
    results = sorted(folder.glob("train.part-*.json"))
    results[0].write_text("{")
    fields = json.loads(results[1].read_text())
    (folder / fields["file"]).unlink()
    fields = json.loads(results[3].read_text())
    os.truncate(folder / fields["file"], fields["file_bytes"] - 1)
    (folder / ".avt-0a1b2c3d.partial").touch()
    assert extract_cli.main(arguments(clips, out)) == 0
    assert contents(out) == uninterrupted


def test_full_disk_is_one_sentence_and_can_go_on(clips, uninterrupted, tmp_path, capsys):
    out = tmp_path / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        assert run(extract_cli.main, arguments(clips, out)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("avt: error: cannot write") and "same command again" in message
    assert not out.exists()
    assert run(extract_cli.main, arguments(clips, out)) == 0
    assert contents(out) == uninterrupted


def hang_or_extract(clip, *, config):
    """In a decoding process: never ends for one of the clips."""
    while clip.source.endswith("b.mp4"):
        signal.pause()
    return real_try_record(clip, config=config)


real_try_record = job.try_record


def test_a_clip_that_hangs_is_left_out(videos, tmp_path, monkeypatch):
    rows = [(videos / f"{name}.mp4", "", "", "x", "train") for name in ("a", "b", "silent")]
    read = read_manifest(write_manifest(tmp_path / "clips.csv", rows))
    monkeypatch.setattr(job, "try_record", hang_or_extract)
    summary = extract(read, tmp_path / "out", config=CONFIG, num_workers=1, clip_timeout_sec=3.0)
    assert summary.num_clips == {"train": 2} and summary.num_failed == {"train": 1}
    failed = (tmp_path / "out" / work_folder.FAILED_FILE).read_text().splitlines()[1:]
    assert len(failed) == 1 and "b.mp4,0.0,,timeout,took longer than the 3 s allowed" in failed[0]
    assert [r["source"] for r in records.open_split(tmp_path / "out", "train")] == [
        str(videos / "a.mp4"),
        str(videos / "silent.mp4"),
    ]
    assert "timeout" not in REASON_CODES  # nothing else says so
