"""Whatever a training that ended at any moment has left in its folder, the same start goes on."""

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import optax
import pytest
from toy_run import checkpoints, every, linear_step, logged, restored, run

from avt_jax.data.records import RecordsInfo
from avt_jax.errors import UserError
from avt_jax.experiment import run_training
from avt_jax.host import lock as locks
from avt_jax.host.new_files import is_partial
from avt_jax.training import mesh as meshes
from avt_jax.training import run_folder
from avt_jax.training.checkpoint import has_checkpoint
from avt_jax.training.checkpoint.folder import list_steps
from avt_jax.training.run_lock import LOCK_FILE, RunLock

STEPS = 4
CONFIG = {"model": {"name": "toy"}, "data": {"path": "shards"}, "train": {"steps": STEPS}}
INFO = RecordsInfo({"label": ("cat", "dog")}, {"train": 4}, 8.0, 64, 90, "1.0.0")


def experiment(config=CONFIG):
    mesh = meshes.make_mesh(meshes.MeshConfig(-1, 1, ((".*", "replicate"),)))
    splits = SimpleNamespace(info=INFO)
    return SimpleNamespace(config=config, splits=splits, mesh=mesh, shards=None, class_weights={})


def start(folder):
    """A training as `train` starts and continues it, of the toy."""
    with contextlib.closing(RunLock(folder)) as lock:
        lock.take_if_there()
        continues = has_checkpoint(folder)
        if continues:
            saved = run_folder.saved_config(folder) or CONFIG
            run_folder.check_continuation(folder, saved, CONFIG, INFO, lambda: True)
        run_training._open_folder(experiment(), folder, lock, continues)
        state, step = linear_step(optax.adam(0.1))
        found = restored(folder, state)
        state = found[0] if found else state
        return run(folder, state, step, schedule=every(STEPS, log=1, evaluate=2, checkpoint=0))


_recording = SimpleNamespace(folder=None, into=None, seen=None, thread=None, known=set())


def _hook(event, arguments):
    """Copies the folder before each file operation of the main thread or Orbax's."""
    folder = _recording.folder
    if folder is None or event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
        return
    if _recording.thread.acquire(blocking=False):
        try:
            _snapshot(folder)
        finally:
            _recording.thread.release()


def _snapshot(folder):
    """Once for each different set of names and sizes."""
    entries = [folder.exists()]
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            # What is deep in a step that is being written is of one kind.
            name = path.relative_to(folder)
            if "orbax-checkpoint-tmp" not in str(name.parent):
                entries.append((str(name).split("tfevents")[0], path.is_file() and _size(path)))
    key = tuple(entries)
    if key not in _recording.known:
        _recording.known.add(key)
        copy = _recording.into / f"{len(_recording.known):03}"
        with contextlib.suppress(shutil.Error):  # what is renamed meanwhile
            if folder.exists():
                shutil.copytree(folder, copy)
                _recording.seen.append(copy)


def _size(path):
    return path.stat().st_size if path.suffix in (".json", ".jsonl", ".partial") else 0


def test_every_state_of_a_start_is_continued(tmp_path):
    into = tmp_path / "states"
    into.mkdir()
    sys.addaudithook(_hook)
    vars(_recording).update(folder=tmp_path / "run", into=into, seen=[], thread=threading.Lock())
    try:
        straight = start(tmp_path / "run")
    finally:
        _recording.folder = None
    states = [
        {path.name.split(".")[0] for path in one.iterdir() if not is_partial(path)}
        for one in _recording.seen
    ]
    names = [{path.name for path in one.iterdir()} for one in _recording.seen]
    assert set() in names and {LOCK_FILE} in names
    assert {LOCK_FILE, "config.json"} in names
    assert {LOCK_FILE, "config.json", "run.json"} in names
    assert {LOCK_FILE, "config.json", "run.json", "checkpoints"} in names
    assert any("metrics" in one and "tensorboard" in one for one in states)
    assert any(map(is_partial, (path for one in _recording.seen for path in one.iterdir())))
    assert any(list(one.glob("checkpoints/*tmp*")) for one in _recording.seen)
    for folder in _recording.seen:
        state = start(folder)
        chex.assert_trees_all_equal(state, straight)
        assert checkpoints(folder) == [2, 4]
        assert [entry["step"] for entry in logged(folder, "train")] == [1, 2, 3, 4]
        assert not any(is_partial(path) for path in folder.iterdir())


def _config_only(folder):
    (folder / "config.json").write_text(json.dumps(CONFIG))


def _write(name, text):
    def make(folder):
        (folder / name).write_text(text)

    return make


def _whole(*makes):
    """A run without a checkpoint, changed."""

    def make(folder):
        run_folder.prepare(folder, CONFIG, INFO, experiment().mesh)
        for one in makes:
            one(folder)

    return make


LEFT_BEHIND = {
    "config alone": _config_only,
    "a temporary file of ours": _write(".avt-0123456789abcdef.partial", '{"mod'),
    "empty checkpoints": lambda folder: (folder / "checkpoints").mkdir(),
    "a step half written": lambda folder: (
        folder / "checkpoints" / "2.orbax-checkpoint-tmp" / "state"
    ).mkdir(parents=True),
    "a step half deleted": lambda folder: (folder / "checkpoints" / "2.deleted" / "state").mkdir(
        parents=True
    ),
    "a lock": _write(LOCK_FILE, ""),
    "an empty config": _write("config.json", ""),
    "half a config": _write("config.json", '{"model": {"na'),
    "half of run.json": _whole(_write("run.json", '{"label')),
    "empty run.json": _whole(_write("run.json", "")),
    "both empty": _whole(_write("run.json", ""), _write("config.json", "")),
    "half a line": _whole(_write("metrics.jsonl", '{"step": 1, "sp')),
    "metrics of others": _whole(_write("metrics.jsonl", '[1]\n{"a": 2}\n\0\n')),
    "metrics alone": _write("metrics.jsonl", '{"step": 1, "split": "train", "loss": 1.0}\n'),
}


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_what_is_left_before_the_first_checkpoint(tmp_path, name, capsys):
    LEFT_BEHIND[name](tmp_path)
    half = "half a config" in name or "half of run" in name
    start(tmp_path)
    assert ("was damaged and is now" in capsys.readouterr().err) == half
    assert checkpoints(tmp_path) == [2, 4]
    assert [entry["step"] for entry in logged(tmp_path, "train")] == [1, 2, 3, 4]
    assert run_folder.read_config(tmp_path) == CONFIG
    assert len(list(tmp_path.glob("*.damaged"))) == half
    start(tmp_path)


FOREIGN = {
    "a file": _write("thesis.txt", "precious"),
    "a file beside a config of ours": lambda folder: (
        (_config_only(folder), _write("thesis.txt", "precious")(folder))
    ),
    "another program's config": _write("config.json", '{"architectures": ["ViT"]}'),
    "a list": _write("config.json", "[1]"),
    "another program's files": lambda folder: (
        [_write(name, "{}")(folder) for name in ("config.json", "run.json")]
    ),
    "another program's checkpoints": lambda folder: (folder / "checkpoints" / "epoch-1").mkdir(
        parents=True
    ),
    "checkpoints are a file": _write("checkpoints", "precious"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_no_training_left_is_refused_untouched(tmp_path, name):
    FOREIGN[name](tmp_path)
    before = {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")}
    with pytest.raises(UserError, match="exists and is not a run folder .* new or empty folder"):
        start(tmp_path)
    assert {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")} == before


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("states") / "run"
    start(folder)
    return folder


@pytest.mark.parametrize("name", ["config.json", "run.json"])
@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "7", '{"a": 1}', "\0" * 100, "[" * 100_000], ids=lambda c: c[:8]
)
def test_files_of_a_run_that_has_begun(trained, tmp_path, name, content, capsys):
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=rf"{name} .*; use another --workdir, or move the file"):
        start(folder)
    assert (folder / name).read_text() == content
    (folder / name).rename(folder / "away")  # as the message says
    start(folder)
    assert f"{folder / name} is missing; written anew" in capsys.readouterr().err
    assert (folder / name).read_text() != content and checkpoints(folder) == [2, 4]


def test_a_start_that_ended_while_it_noted_changes(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    now = CONFIG | {"train": {"steps": 9}}
    changes = run_folder.differences(CONFIG, now)
    for _ in range(2):
        run_folder.record_changes(folder, now, changes, 4)
    assert len(json.loads((folder / "run.json").read_text())["changes"]) == 1


HOLDER = """
import signal, sys
from pathlib import Path
from avt_jax.training.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.take()
print("held", flush=True)
signal.pause()
"""


def test_one_training_at_a_time(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    words = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            before = sorted(folder.rglob("*"))
            with pytest.raises(UserError, match=f"another training is running in {folder}; stop"):
                start(folder)
            assert sorted(folder.rglob("*")) == before
        finally:
            holder.send_signal(signal.SIGKILL)
    start(folder)
    with contextlib.closing(RunLock(folder)) as mine:
        mine.take()
        mine.take()
        with pytest.raises(UserError, match="another training is running"):
            start(folder)
    start(folder)


def test_two_that_start_together(tmp_path):
    """One makes the folder and ends while the other, which saw none, still compiles."""
    folder = tmp_path / "run"
    with contextlib.closing(RunLock(folder)) as late:
        late.take_if_there()
        start(folder)
        with pytest.raises(UserError, match="another training has written to .* run this command"):
            run_training._open_folder(experiment(), folder, late, False)


def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    """Nor hard links, nor folders that can be synced, as mounted buckets have none."""
    fsync = os.fsync

    def fails(code):
        def call(*_, **__):
            raise OSError(code, os.strerror(code))

        return call

    def files_only(descriptor):
        (fails(errno.EINVAL) if stat.S_ISDIR(os.fstat(descriptor).st_mode) else fsync)(descriptor)

    monkeypatch.setattr(locks.fcntl, "flock", fails(errno.ENOLCK))
    monkeypatch.setattr(os, "link", fails(errno.ENOTSUP))
    monkeypatch.setattr(os, "fsync", files_only)
    start(tmp_path / "run")
    assert capsys.readouterr().err.count("has no locks") == 1
    assert checkpoints(tmp_path / "run") == [2, 4]


NOT_ROOT = """
import os, sys
from pathlib import Path
from avt_jax.errors import UserError
from avt_jax.training import run_folder
from avt_jax.training.checkpoint import has_checkpoint, load_run
from avt_jax.training.run_lock import RunLock
def opens(folder):
    RunLock(folder).take_if_there()
    has_checkpoint(folder)
    run_folder.make(folder)
    RunLock(folder).take()
load_run(sys.argv[1])  # what is imported late, another user may not read
os.setuid(65534)
for act in (opens, load_run):
    try:
        act(Path(sys.argv[2]))
        print("fine")
    except UserError as error:
        print("avt: error:", error)
"""


@pytest.fixture
def readable(trained):
    """A copy of the run that every user may read."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        folder = shutil.copytree(trained, Path(place) / "run")
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield folder


@pytest.fixture
def not_root(trained):
    """What a user who is not root is told of a folder, when training and when reading."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")

    def ask(folder):
        words = [sys.executable, "-c", NOT_ROOT, str(trained), str(folder)]
        found = subprocess.run(words, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        return found.stdout.splitlines()

    return ask


@pytest.mark.parametrize(
    ("mode", "training", "reading"),
    [
        (0o555, "cannot be used: Permission denied; give a folder that can be written", "fine"),
        (0o000, "cannot .*: Permission denied", "Permission denied"),
    ],
)
def test_without_permission(readable, not_root, mode, training, reading):
    readable.chmod(mode)
    found = not_root(readable)
    assert re.search(training, found[0]) and re.search(reading, found[1]), found
    assert len(found) == 2
    assert re.search("cannot be used: Permission denied", not_root(readable.parent / "new")[0])


def test_a_checkpoint_that_may_not_be_read_is_not_damaged(readable, not_root):
    (readable / "checkpoints/4/meta/metadata").chmod(0)
    assert re.search("cannot read .*metadata: Permission denied; make it", not_root(readable)[1])


def test_a_workdir_that_is_a_file_or_below_one(tmp_path):
    (tmp_path / "file").write_text("precious")
    for path in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="--workdir .* give a|cannot look into"):
            start(path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="--workdir"):
        start(tmp_path / "dangling")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("mounting is not permitted; test_checkpoint_faults.py does without")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up(small_disk, capfd):
    folder = small_disk / "run"
    start(folder)
    shutil.rmtree(folder / "checkpoints/4")
    filler = small_disk / "filler"
    with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(UserError, match="No space left on device"):
        start(folder)
    assert list_steps(folder / "checkpoints") == [2]
    assert "Traceback" not in capfd.readouterr().err
    filler.unlink()
    state = start(folder)
    assert int(state.step) == STEPS and checkpoints(folder) == [2, 4]
    assert jax.tree.leaves(state.params)
