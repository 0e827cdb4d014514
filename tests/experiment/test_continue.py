"""What a run may do otherwise when it goes on, and that advice in messages can be followed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from doctor_shards import clip, good, write

import avt_jax
from avt_jax.experiment.doctor import at_start
from avt_jax.training import run_folder
from avt_jax.training.checkpoint import load_run

# One modality: what is tested here does not depend on the model, and it compiles faster.
BASE = {
    "model": {"modalities": "audio"},
    "data": {"path": "generated:24:label=3", "num_threads": 1},
    "train": {"batch_size": 8, "eval_batch_size": 8, "steps": 4, "eval_every_steps": 2},
}


def run(folder, changes=(), said=None):
    config = avt_jax.load_config("quickstart:smoke", {**_flat(BASE), **dict(changes)})
    say = (lambda line: None) if said is None else said.append
    return avt_jax.train(config, folder, say=say)


def _flat(block):
    return {f"{name}.{k}": v for name, fields in block.items() for k, v in fields.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of 4 steps; copy it before going on."""
    folder = tmp_path_factory.mktemp("continue") / "run"
    run(folder)
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    import shutil

    return shutil.copytree(trained, tmp_path / "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer.lr": 1e-5, "train.steps": 6},
        {"train.epochs": 3.0, "train.steps": 0},
        {"train.examples": 64, "train.steps": 0, "train.log_every_steps": 2},
        {"optimizer.min_lr": 2e-5, "optimizer.warmup_steps": 2, "train.steps": 6},
        {"model.precision": "bfloat16", "train.steps": 6},
        {"data.max_damaged": 99, "train.steps": 6, "train.eval_every_steps": 3},
        {"train.batch_size": 16, "train.steps": 6},
        {"data.balance": "label", "train.steps": 6},
        {"data.path": "generated:20:label=3", "train.steps": 6},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_may_change_goes_on_and_is_recorded(copy, changes):
    said = []
    result = run(copy, changes, said)
    assert int(result.state.step) > 4
    recorded = json.loads((copy / "run.json").read_text())["changes"]
    assert {entry["name"] for entry in recorded} >= set(changes)
    assert all(entry["step"] == 4 for entry in recorded)
    for name, value in changes.items():
        block, field = name.split(".")
        assert run_folder.read_config(copy)[block][field] == value
        assert any(f"from step 4 on: config.{name} was" in line for line in said)
    # And the run is a run like any other.
    assert load_run(copy, "last").step == int(result.state.step)


def test_a_batch_of_another_size_continues_with_the_next_clip(tmp_path):
    from avt_jax.data.loading import pipeline
    from avt_jax.data.loading.config import DataConfig
    from avt_jax.data.records.generated import open_generated

    source = open_generated("generated:7:label=2", "train")[1]
    config = DataConfig(num_frames=2, clip_sec=0.5, frame_size_px=16, num_threads=0)

    def batches(size):
        return pipeline.make_train_iterator(source, config, batch_size=size, seed=3)

    def ids(iterator, count):
        return [name for _ in range(count) for name in next(iterator)["id"].tolist()]

    whole = ids(batches(1), 20)
    first = batches(4)
    seen = ids(first, 2)
    second = batches(3)
    assert second.set_state(json.loads(json.dumps(first.get_state()))) == []
    assert seen + ids(second, 4) == whole
    # Positions that earlier versions saved count batches.
    old = {k: v for k, v in first.get_state().items() if k != "clips"}
    third = batches(4)
    third.set_state(old)
    assert ids(third, 3) == whole[8:20]


def test_a_data_set_of_another_size_begins_its_next_epoch():
    from avt_jax.data.loading import pipeline
    from avt_jax.data.loading.config import DataConfig
    from avt_jax.data.records.generated import open_generated

    config = DataConfig(num_frames=2, clip_sec=0.5, frame_size_px=16, num_threads=0)
    old, new = (
        pipeline.make_train_iterator(
            open_generated(f"generated:{count}:label=2", "train")[1], config, batch_size=2, seed=3
        )
        for count in (8, 6)
    )
    for _ in range(5):  # into the second epoch
        next(old)
    assert new.set_state(old.get_state()) == [
        "the training split has 6 clips now, not 8: its next epoch begins"
    ]
    assert new.get_state()["clips"] == 12
    seen = [name for _ in range(3) for name in next(new)["id"].tolist()]
    assert len(set(seen)) == 6


def advice(error):
    """The values of the --config words that a message advises."""
    return dict(re.findall(r"--config\.([\w.]+)=([^\s,;]+)", str(error)))


@pytest.mark.parametrize(
    "changes",
    [
        {"losses.weights.contrastive": 0.3},
        {"data.flip": False},
        {"optimizer.name": "sgd"},
        {"optimizer.ema_decay": 0.9},
        {"seed": 3},
        {"model.drop_path": 0.1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_cannot_change_names_ways_out_that_work(copy, tmp_path, changes):
    with pytest.raises(avt_jax.UserError, match="cannot change while a run goes on") as error:
        run(copy, changes)
    name = next(iter(changes))
    assert f"config.{name} was" in str(error.value) and not (tmp_path / "new").exists()
    advised = advice(error.value)
    assert advised["init.model"] == str(copy) and name in advised
    # The one: a new run from these weights.
    fresh = run(tmp_path / "new", {**changes, "init.model": str(copy), "train.steps": 1})
    assert int(fresh.state.step) == 1
    # The other: the value it had.
    run(copy)


def test_no_start_from_weights_is_advised_that_do_not_fit(copy, tmp_path):
    changes = {"model.dim": 32}
    with pytest.raises(avt_jax.UserError, match="new --workdir, or give") as error:
        run(copy, changes)
    assert "init.model" not in str(error.value)
    assert int(run(tmp_path / "new", {**changes, "train.steps": 1}).state.step) == 1


def test_a_run_that_has_reached_no_checkpoint_may_become_anything(tmp_path, monkeypatch):
    from avt_jax.experiment import run_training as module

    def fail(*args, **kwargs):
        raise avt_jax.UserError("step 1: loss is not finite")

    monkeypatch.setattr(module, "fit", fail)
    with pytest.raises(avt_jax.UserError, match="not finite"):
        run(tmp_path / "run")
    monkeypatch.undo()
    assert int(run(tmp_path / "run", {"optimizer.name": "sgd"}).state.step) == 4
    assert run_folder.read_config(tmp_path / "run")["optimizer"]["name"] == "sgd"


def test_not_finite_and_the_advice_followed(tmp_path):
    folder = tmp_path / "run"
    wild = {"optimizer.lr": 1e30, "optimizer.warmup_epochs": 0.0, "optimizer.clip_norm": 0.0}
    run(folder, {"train.steps": 1})
    with pytest.raises(avt_jax.UserError, match="not finite") as error:
        run(folder, {**wild, "train.steps": 8, "train.eval_every_steps": 8})
    assert "lower --config.optimizer.lr" in str(error.value)
    result = run(folder, {"optimizer.lr": 1e-4, "train.steps": 8})
    assert int(result.state.step) == 8 and np.isfinite(result.metrics["train/loss"])


def files(folder):
    """What every file of a run holds, but those of its evaluations and of the lock."""
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_finished_run_says_so_at_once_and_goes_on_with_more_steps(copy, monkeypatch):
    from avt_jax.experiment.assemble import Experiment

    before, said = files(copy), []
    with monkeypatch.context() as patch:
        for name in ("init_state", "train_batches", "step", "predict_part"):
            patch.setattr(Experiment, name, None)
        result = run(copy, said=said)
    assert int(result.state.step) == 4 and result.best_score is not None
    assert files(copy) == before
    advised = re.search(r"already finished: step 4 of 4; a larger --config\.(\S+) goes", said[-1])
    assert int(run(copy, {advised[1]: 5}).state.step) == 5
    # In another unit the advice is another, and holds, too.
    said.clear()
    run(copy, {"train.steps": 0, "train.epochs": 1.0}, said)
    assert "already finished: step 5 of 3; a larger --config.train.epochs goes on" in said[-1]
    assert int(run(copy, {"train.steps": 0, "train.epochs": 2.0}).state.step) == 6


def test_the_last_evaluation_is_made_up_for(copy):
    file = copy / "metrics.jsonl"
    lines = file.read_text().splitlines()
    assert '"val"' in lines[-1] and '"step": 4' in lines[-1]
    file.write_text("\n".join(lines[:-1]) + "\n")
    said = []
    run(copy, said=said)
    assert file.read_text().splitlines() == lines and "continuing" not in said[-1]


def test_the_data_are_looked_at_when_a_run_begins_and_not_again(tmp_path, capsys, monkeypatch):
    # However busy the machine is.
    monkeypatch.setattr(at_start, "_GLANCE_SEC", 60.0)
    made = good()
    made["val"].append(clip(500, source=made["train"][0]["source"]))
    changes = {"data.path": str(write(tmp_path / "shards", made, ("cat", "dog", "eel")))}
    run(tmp_path / "run", changes)
    said = capsys.readouterr().err
    assert "error: 1 file(s) have clips in more than one split" in said
    assert f"'avt doctor {tmp_path / 'shards'} --config ...' says what to do" in said
    other = write(tmp_path / "other", made, ("cat", "dog", "eel"))
    run(tmp_path / "run2", {"data.path": str(other)})
    assert "error: 1 file(s) have clips in more than one split" in capsys.readouterr().err
    at_start._say_once.cache_clear()
    run(tmp_path / "run", {**changes, "train.steps": 6})
    assert "in more than one split" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("workdir", "way"),
    [
        ("gs://bucket/runs/a", "mount the bucket with gcsfuse on every host .*tpu_pod.sh"),
        (Path("gs://bucket/runs/a"), "mount the bucket with gcsfuse on every host"),
        (Path("s3://bucket/runs/a"), "give one on a file system that all hosts"),
    ],
)
def test_a_run_folder_is_no_url(workdir, way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = avt_jax.load_config("quickstart:smoke")
    with pytest.raises(avt_jax.UserError, match=f"(gs|s3):/.*/runs/a is not a folder; {way}"):
        avt_jax.train(config, workdir)
    assert not list(tmp_path.iterdir())
