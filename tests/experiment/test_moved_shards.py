"""A run and its shards that were moved, and mistakes about shards at the commands' doors."""

import json

import pytest
from small_shards import clip, write
from tiny_run import make_run

import avt_jax
from avt_jax.cli import main as cli
from avt_jax.experiment import evaluate as evaluation
from avt_jax.experiment import run_training

CLASSES = tuple(f"class {i}" for i in range(16))
CHANGES = ["--config.data.path=shards", "--config.model.modalities=audio"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moved") / "project"
    folder.mkdir()
    clips = [clip(i, labels={"label": i}) for i in range(3)]
    splits = dict.fromkeys(("train", "val", "test"), clips)
    write(folder / "shards", splits, classes=CLASSES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_run("runs/mine", CHANGES)
    return folder


@pytest.fixture
def project(original, tmp_path, monkeypatch):
    import shutil

    monkeypatch.chdir(tmp_path)
    return shutil.copytree(original, tmp_path / "moved")


@pytest.fixture
def evaluated(monkeypatch):
    """The shard folders that evaluations have come as far as."""
    seen = []

    def stop(experiment, model, source, data, *rest, **options):
        assert len(source) == 3
        seen.append(data.path)
        raise avt_jax.UserError("far enough.")

    monkeypatch.setattr(evaluation, "_evaluate", stop)
    return seen


def test_evaluation_of_what_was_moved(project, original, evaluated, monkeypatch, capsys):
    run = project / "runs" / "mine"
    # The original is still there, and is what the run was trained on.
    assert cli.main(["evaluate", "--checkpoint", str(run)]) == 2
    assert evaluated == [str(original / "shards")]
    hidden = original.rename(original.with_name("hidden"))
    try:
        assert cli.main(["evaluate", "--checkpoint", str(run)]) == 2
        assert evaluated[1:] == [str(project / "shards")]
        assert f"the run's shards were found at {project}/shards" in capsys.readouterr().err
        monkeypatch.chdir(project)
        assert cli.main(["evaluate", "--checkpoint", "runs/mine"]) == 2
        assert evaluated[2:] == ["shards"] and "found at" not in capsys.readouterr().err
        (project / "shards").rename(project / "s")
        assert cli.main(["evaluate", "--checkpoint", "runs/mine", "--data", "s"]) == 2
        assert evaluated[3:] == ["s"]
        capsys.readouterr()
        assert cli.main(["evaluate", "--checkpoint", "runs/mine"]) == 2
        assert capsys.readouterr().err == (
            "avt: error: config.data.path in runs/mine/config.json is shards, and there is no "
            f"shard folder at shards or at {original}/shards; give the one that 'avt extract' made "
            "with --data SHARDS.\n"
        )
    finally:
        hidden.rename(original)


def test_training_goes_on_with_what_was_moved(project, original, monkeypatch):
    seen = []
    monkeypatch.setattr(run_training, "_train", lambda experiment, *_: seen.append(experiment))
    monkeypatch.setattr(run_training, "_result", lambda *_: None)
    run = project / "runs" / "mine"
    facts = json.loads((run / "run.json").read_text())
    facts["shards"]["absolute"] = "/nowhere"
    (run / "run.json").write_text(json.dumps(facts))
    avt_jax.train(avt_jax.load_config("quickstart:smoke", CHANGES), run)
    (experiment,) = seen
    assert experiment.data.path == experiment.shards == str(project / "shards")
    assert experiment.config["data"]["path"] == "shards", "no change of the run"
    assert len(experiment.splits.train) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["evaluate", "--checkpoint", "runs/mine", "--data", "none"],
            "--data is none, and there is no shard folder at none; give the one that 'avt extract' "
            "made with --data SHARDS.",
        ),
        (
            ["evaluate", "--checkpoint", "runs/mine", "--data", "runs"],
            "--data: runs is not a shard folder (no dataset_info.json in it); give the folder that "
            "'avt extract --out' made.",
        ),
        (
            ["train", "--config", "quickstart", "--workdir", "new", "--config.data.path=none"],
            "--config.data.path is none, and there is no shard folder at none; give the one that "
            "'avt extract' made with --config.data.path=SHARDS.",
        ),
        (
            ["train", "--config", "quickstart", "--workdir", "new", "--config.data.path=runs"],
            "--config.data.path: runs is not a shard folder (no dataset_info.json in it); give the "
            "folder that 'avt extract --out' made.",
        ),
        (
            ["train", "--config", "quickstart", "--workdir", "new", "--config.data.eval_split=vl"],
            "shards has no split 'vl' (did you mean 'val'?); it has train, val, test.",
        ),
    ],
)
def test_mistakes_name_the_option_and_the_folder(project, monkeypatch, capsys, words, message):
    monkeypatch.chdir(project)
    assert cli.main(words) == 2
    assert capsys.readouterr().err == f"avt: error: {message}\n"
    assert not (project / "new").exists()
