"""Checkpoints that are damaged, and disks that are: the newest intact one is used, and told."""

import contextlib
import errno
import json
import os
import shutil
import sys

import chex
import jax
import optax
import pytest
from toy_run import checkpoints, every, linear_step, restored, run

from avt_jax.errors import UserError
from avt_jax.training.checkpoint import Checkpointer, load_run
from avt_jax.training.checkpoint import folder as folders

OLD, NEW = 2, 4


def fresh():
    return linear_step(optax.adam(0.1), ema_decay=0.5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder with checkpoints of the steps 2 and 4."""
    folder = tmp_path_factory.mktemp("faults") / "run"
    state, step = fresh()
    run(folder, state, step, schedule=every(NEW, evaluate=OLD, checkpoint=0))
    (folder / "config.json").write_text("{}")
    facts = {"label_sets": {"label": ["a"]}, "records": {"frame_rate_hz": 8}}
    (folder / "run.json").write_text(json.dumps(facts))
    assert checkpoints(folder) == [OLD, NEW]
    return folder


@pytest.fixture(scope="module")
def states(trained):
    """{step: (state, position)} as saved."""
    found = {}
    for step in (NEW, OLD):
        copy = shutil.copytree(trained, trained.with_name(f"only-{step}"))
        shutil.rmtree(copy / "checkpoints" / str(OLD + NEW - step))
        found[step] = restored(copy, fresh()[0])
        assert int(found[step][0].step) == step
    return found


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def half(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def remove(path):
    path.unlink()


def folder_instead(path):
    path.unlink()
    path.mkdir()


DAMAGES = (half, empty, flip, remove, folder_instead)


def files_of(step_folder):
    return sorted(p.relative_to(step_folder) for p in step_folder.rglob("*") if p.is_file())


def goes_on(folder, states, capsys):
    """The step that a training goes on from, which must be one as it was saved, and be told."""
    capsys.readouterr()
    for which in ("last", "best"):
        read = load_run(folder, which)
        chex.assert_trees_all_equal(read.params, states[read.step][0].ema)
        told = f"avt: checkpoint {NEW} is damaged (" in capsys.readouterr().err
        assert told == (read.step != NEW)
    state, position = restored(folder, fresh()[0])
    step = int(state.step)
    # It reads more than the weights.
    assert step <= read.step
    chex.assert_trees_all_equal((state, position), states[step])
    assert (f"avt: checkpoint {NEW} is damaged (" in capsys.readouterr().err) == (step != NEW)
    assert (folder / f"checkpoints/{NEW}.damaged").is_dir() == (step != NEW), "nothing is deleted"
    assert load_run(folder, "best").step == step
    return step


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_any_file_of_the_newest_checkpoint(trained, states, tmp_path, capsys, damage):
    steps = []
    for number, name in enumerate(files_of(trained / "checkpoints" / str(NEW))):
        folder = shutil.copytree(trained, tmp_path / str(number))
        damage(folder / "checkpoints" / str(NEW) / name)
        steps.append((str(name), goes_on(folder, states, capsys)))
    fell_back = {name for name, step in steps if step == OLD}
    assert "meta/metadata" in fell_back
    assert any("/d/" in name for name in fell_back), "no file of arrays seems to matter"


@pytest.mark.parametrize(
    "content",
    [
        [],
        "position",
        {},
        {"position": {"batches": 4}},
        {"position": {"batches": 4}, "checksums": {}},
        {"position": [4], "checksums": {"params": 1}},
        {"position": {"batches": 4}, "checksums": [1, 2]},
        {"position": {"batches": 4}, "checksums": {"params": "1"}},
        {"position": {"batches": 4}, "checksums": {}, "more": 1},
    ],
    ids=lambda content: json.dumps(content)[:60],
)
def test_meta_that_nobody_wrote(copy, states, capsys, content):
    (copy / f"checkpoints/{NEW}/meta/metadata").write_text(json.dumps(content))
    assert goes_on(copy, states, capsys) == OLD


@pytest.mark.parametrize("field", ["position", "checksums", "structure", "score", "check"])
def test_meta_of_which_one_field_is_another(copy, states, capsys, field):
    path = copy / f"checkpoints/{NEW}/meta/metadata"
    content = json.loads(path.read_text())
    content[field] = {"batches": 3} if isinstance(content[field], dict) else 3
    path.write_text(json.dumps(content))
    assert goes_on(copy, states, capsys) == OLD


def test_the_same_step_is_damaged_twice(copy, states, capsys):
    for aside in ("damaged", "damaged-2", "damaged-3"):
        shutil.rmtree(copy / f"checkpoints/{NEW}/state")
        state, _ = restored(copy, fresh()[0])
        assert f"checkpoint {NEW} is now {copy}/checkpoints/{NEW}.{aside}" in (
            capsys.readouterr().err
        )
        run(copy, state, fresh()[1], schedule=every(NEW, evaluate=OLD, checkpoint=0))
        assert list(map(int, folders.list_steps(copy / "checkpoints"))) == [NEW, OLD]
    chex.assert_trees_all_equal(restored(copy, fresh()[0])[0], states[NEW][0])


def test_all_are_damaged(copy, capsys):
    for step in (OLD, NEW):
        half(max((copy / f"checkpoints/{step}").rglob("d/*"), key=lambda p: p.stat().st_size))
    for _ in range(2):
        with pytest.raises(UserError, match=r"is intact \(tried \[4, 2\]\); move the folder away"):
            restored(copy, fresh()[0])
        with pytest.raises(UserError, match="no intact checkpoint"):
            load_run(copy)
    assert checkpoints(copy) == [OLD, NEW], "they stay where they are"


@pytest.mark.parametrize("step", ["5", "3"])
@pytest.mark.parametrize("make", ["file", "empty folder"])
def test_what_is_called_like_a_checkpoint(copy, states, make, step):
    path = copy / "checkpoints" / step
    path.write_text("") if make == "file" else path.mkdir()
    state, _ = restored(copy, fresh()[0])
    assert int(state.step) == NEW
    assert load_run(copy, "last").step == load_run(copy).step == NEW


def test_the_checkpoint_of_a_step(copy, states):
    for step in (OLD, NEW):
        read = load_run(copy, str(step))
        assert read.step == step
        chex.assert_trees_all_equal(read.params, states[step][0].ema)
    with pytest.raises(UserError, match=f"has no checkpoint of step 77; it has {OLD}, {NEW}"):
        load_run(copy, "77")
    half(max((copy / f"checkpoints/{OLD}").rglob("d/*"), key=lambda p: p.stat().st_size))
    with pytest.raises(UserError, match=f"checkpoint {OLD} of .* is damaged; give another step"):
        load_run(copy, str(OLD))
    assert load_run(copy, str(NEW)).step == NEW


def test_what_killed_processes_leave_among_checkpoints(copy, states):
    source = copy / f"checkpoints/{OLD}"
    for name in ("6.orbax-checkpoint-tmp", "7.orbax-checkpoint-tmp-123", "1.deleted"):
        shutil.copytree(source, copy / "checkpoints" / name)
    (copy / "checkpoints/notes.txt").write_text("mine")
    chex.assert_trees_all_equal(restored(copy, fresh()[0]), states[NEW])
    left = sorted(path.name for path in (copy / "checkpoints").iterdir())
    assert left == [str(OLD), str(NEW), "notes.txt"]


def test_a_checkpoint_that_was_renamed_in_part(trained, states, tmp_path, capsys):
    """As a bucket without folders of its own does it, file by file, when the machine is lost."""
    steps = []
    files = files_of(trained / "checkpoints" / str(NEW))
    for count in range(len(files) + 1):
        folder = shutil.copytree(trained, tmp_path / str(count))
        whole = folder / "checkpoints" / str(NEW)
        partial = whole.rename(f"{whole}.orbax-checkpoint-tmp")
        whole.mkdir()
        for name in files[:count]:
            (whole / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).rename(whole / name)
        steps.append(goes_on(folder, states, capsys))
        assert not partial.exists()
    assert steps[0] == OLD and steps[-1] == NEW
    assert sorted(steps) == steps


def test_a_checkpoint_gets_its_score_later_in_place(copy, states):
    checkpointer = Checkpointer(copy, keep_last=9, keep_best=1)
    state, position = states[OLD]
    checkpointer.save(state, position, 0.9, replace=True)
    checkpointer.save(state, position, None, replace=True)
    checkpointer.save(state, position, 0.1)
    checkpointer.close()
    assert load_run(copy).step == OLD, "0.9 is the highest"
    shutil.rmtree(copy / f"checkpoints/{NEW}")
    chex.assert_trees_all_equal(restored(copy, fresh()[0]), states[OLD])


def test_checkpoints_of_earlier_versions_are_read(copy, states):
    """They had nothing that vouches for the position, and the score in a file of Orbax's."""
    for step, score in ((OLD, 0.75), (NEW, 0.5)):
        path = copy / f"checkpoints/{step}/meta/metadata"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({k: content[k] for k in ("position", "checksums")}))
        (copy / f"checkpoints/{step}/metrics").mkdir()
        file = copy / f"checkpoints/{step}/metrics/metrics"
        file.write_text(json.dumps({"score": score}))
    assert load_run(copy).step == OLD
    chex.assert_trees_all_equal(restored(copy, fresh()[0]), states[NEW])
    file.write_text("[")
    chex.assert_trees_all_equal(restored(copy, fresh()[0]), states[NEW])


def test_memory_that_is_short_is_no_damage(copy, monkeypatch):
    from avt_jax.training.checkpoint import stored

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(stored.ocp.PyTreeCheckpointHandler, "restore", fail)
    with pytest.raises(MemoryError):
        restored(copy, fresh()[0])
    assert checkpoints(copy) == [OLD, NEW]


def _save_next(folder, states):
    state, position = states[NEW]
    later = type(state)(state.step + 2, *jax.tree.leaves(state, is_leaf=_is_part)[1:])
    checkpointer = Checkpointer(folder, keep_last=9, keep_best=1)
    try:
        checkpointer.save(later, position, 0.5)
        checkpointer.wait()
    finally:
        checkpointer.close()


def _is_part(node):
    return not hasattr(node, "opt_state")


@pytest.mark.parametrize("place", ["arrays", "commit"])
def test_a_full_disk_keeps_the_older_checkpoints(copy, states, monkeypatch, place, capfd):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if place == "arrays":
        # As TensorStore tells it.
        full = ValueError(
            "RESOURCE_EXHAUSTED: Error writing: [OS error 28: No space left on device]"
        )

    async def fail(*_, **__):
        raise full

    from orbax.checkpoint._src.path.atomicity import AtomicRenameTemporaryPath

    monkeypatch.setattr(AtomicRenameTemporaryPath, "finalize", fail)
    with pytest.raises(UserError, match=r"cannot write checkpoint 6 to .* \(No space left on dev"):
        _save_next(copy, states)
    assert folders.list_steps(copy / "checkpoints") == [NEW, OLD]
    assert "Traceback" not in capfd.readouterr().err
    chex.assert_trees_all_equal(restored(copy, fresh()[0]), states[NEW])


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process as Linux has them")
def test_a_file_that_may_not_grow(copy, states):
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
        with pytest.raises(UserError, match=r"cannot write checkpoint 6 to .* \(File too large\)"):
            _save_next(copy, states)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    # Orbax's threads may write for a moment longer, under a name that is no step's.
    assert folders.list_steps(copy / "checkpoints") == [NEW, OLD]
    chex.assert_trees_all_equal(restored(copy, fresh()[0]), states[NEW])


def test_the_folder_is_deleted_under_a_training(copy, capfd):
    state, step = fresh()

    def evaluate(state, asked):
        if int(state.step) == 4:
            shutil.rmtree(copy)
        return {"top1/label": 0.5}, 0.5

    message = "was deleted while the training was running; .* the same command starts anew"
    with pytest.raises(UserError, match=message):
        run(copy, state, step, schedule=every(8, evaluate=2, checkpoint=0), evaluate=evaluate)
    assert not copy.exists(), "it does not come back"
    assert "Traceback" not in capfd.readouterr().err


def test_the_folder_is_deleted_and_orbax_makes_it_anew(copy, states):
    state, position = states[NEW]
    checkpointer = Checkpointer(copy, keep_last=9, keep_best=1)
    shutil.rmtree(copy)
    (copy / "checkpoints/6").mkdir(parents=True)
    with contextlib.closing(checkpointer), pytest.raises(UserError, match="was deleted while"):
        checkpointer.save(state, position, 0.5)


def test_the_folder_is_deleted_under_a_save(copy, states, monkeypatch):
    """What Orbax writes then comes back without the rest, and says so in its own ways."""
    from orbax.checkpoint._src.path.atomicity import AtomicRenameTemporaryPath

    async def fail(*_, **__):
        shutil.rmtree(copy)
        (copy / "checkpoints/6.orbax-checkpoint-tmp").mkdir(parents=True)
        raise ValueError("No ArrayMetadata found")

    monkeypatch.setattr(AtomicRenameTemporaryPath, "finalize", fail)
    with pytest.raises(UserError, match="was deleted while the training was running"):
        _save_next(copy, states)


def test_the_mount_dies_under_a_save(copy, states, monkeypatch):
    """From then on every look at it fails; the sentence comes all the same."""
    from orbax.checkpoint._src.path.atomicity import AtomicRenameTemporaryPath

    dead = OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    def dying(call):
        def called(path, *arguments, **options):
            if has_died and str(path).startswith(str(copy)):
                raise dead
            return call(path, *arguments, **options)

        return called

    async def fail(*_, **__):
        has_died.append(True)
        raise dead

    has_died = []
    monkeypatch.setattr(AtomicRenameTemporaryPath, "finalize", fail)
    for name in ("stat", "listdir", "scandir"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))
    with pytest.raises(
        UserError, match=r"cannot write checkpoint 6 .* \(Transport endpoint is not con"
    ):
        _save_next(copy, states)


def test_an_error_of_the_program_is_not_one_of_the_disk(copy, states, monkeypatch):
    from orbax.checkpoint._src.path.atomicity import AtomicRenameTemporaryPath

    async def fail(*_, **__):
        raise ValueError("a mistake in the program")

    monkeypatch.setattr(AtomicRenameTemporaryPath, "finalize", fail)
    with pytest.raises(ValueError, match="a mistake in the program"):
        _save_next(copy, states)
    assert folders.list_steps(copy / "checkpoints") == [NEW, OLD]
