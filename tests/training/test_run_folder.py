"""What a run folder says about itself, and that another run cannot slip into it."""

import json

import jax
import pytest

from avt_jax.data.records import RecordsInfo
from avt_jax.errors import UserError
from avt_jax.training import mesh as meshes
from avt_jax.training import run_folder

CONFIG = {
    "seed": 0,
    "data": {"path": "shards", "clip_sec": 4.0, "crop_scale": (0.5, 1.0), "num_threads": 2},
    "model": {"name": "avt"},
}


def shards(classes=("cat", "dog")):
    return RecordsInfo({"label": classes}, {"train": 4}, 8.0, 64, 90, "1.0.0")


def start(folder, *, config=CONFIG):
    mesh = meshes.make_mesh(meshes.MeshConfig(), jax.devices()[:1])
    run_folder.prepare(folder, config, shards(), mesh)


def goes_on(folder, config, *, classes=("cat", "dog"), fits=True):
    saved = run_folder.read_config(folder)
    run_folder.check_continuation(folder, saved, config, shards(classes), lambda: fits)


def changed(block, **fields):
    return CONFIG | {block: CONFIG[block] | fields}


def test_writes_config_and_facts(tmp_path):
    start(tmp_path / "run")
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert saved["data"]["crop_scale"] == [0.5, 1.0]
    assert facts["label_sets"] == {"label": ["cat", "dog"]}
    assert facts["records"]["jpeg_quality"] == 90 and facts["versions"]["jax"] == jax.__version__
    assert not list((tmp_path / "run").glob("*.part"))


def test_the_same_run_may_go_on_with_other_threads_and_moved_shards(tmp_path):
    start(tmp_path / "run")
    config = changed("data", num_threads=8, path="elsewhere")
    goes_on(tmp_path / "run", config)
    changes = run_folder.differences(run_folder.read_config(tmp_path / "run"), config)
    assert {change.name for change in changes} == {"data.num_threads", "data.path"}
    run_folder.record_changes(tmp_path / "run", config, changes, 7)
    run_folder.record_changes(tmp_path / "run", config, [], 8)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {"step": 7, "name": "data.path", "before": "shards", "after": "elsewhere"} in facts[
        "changes"
    ]
    assert len(facts["changes"]) == 2 and facts["label_sets"] == {"label": ["cat", "dog"]}
    assert run_folder.read_config(tmp_path / "run")["data"]["path"] == "elsewhere"


def test_another_config_is_refused_with_a_way_out(tmp_path):
    start(tmp_path / "run")
    config = changed("data", clip_sec=8.0, num_threads=3) | {"seed": 1}
    with pytest.raises(UserError, match="config.seed was 0 and is now 1 .and 1 more") as error:
        goes_on(tmp_path / "run", config)
    assert f"--config.init.model={tmp_path / 'run'}" in str(error.value)
    assert "give --config.seed=0 to continue" in str(error.value)
    with pytest.raises(UserError, match="train that in a new --workdir, or give") as error:
        goes_on(tmp_path / "run", config, fits=False)


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("train.batch_size", True),
        ("optimizer.lr", True),
        ("optimizer.warmup_steps", True),
        ("optimizer.name", False),
        ("optimizer.ema_decay", False),
        ("model.precision", True),
        ("model.remat", True),
        ("model.video_encoder.remat", True),
        ("model.dim", False),
        ("model.video_encoder.dim", False),
        ("data.path", True),
        ("data.clip_sec", False),
        ("data.max_damaged", True),
        ("losses.weights.matching", False),
        ("masking.strategy", False),
        ("init.model", True),
        ("seed", False),
    ],
)
def test_what_may_change(name, may):
    assert run_folder.Change(name, 0, 1).may_change is may


def test_differences_are_those_after_json():
    before = {"a": (1, 2), "b": {"c": 1.0, "gone": 0}, "d": {"x": 1}}
    after = {"a": [1, 2], "b": {"c": 2.0, "new": 3}, "d": 5}
    assert [(c.name, c.before, c.after) for c in run_folder.differences(before, after)] == [
        ("b.c", 1.0, 2.0),
        ("b.new", None, 3),
        ("b.gone", 0, None),
        ("d", {"x": 1}, 5),
    ]


def test_other_classes_are_refused(tmp_path):
    start(tmp_path / "run")
    with pytest.raises(UserError, match="trained on other classes"):
        goes_on(tmp_path / "run", CONFIG, classes=("cat", "dog", "owl"))


@pytest.mark.parametrize("text", ["", "{", "[1]", None])
def test_a_description_that_does_not_read_is_named(tmp_path, text):
    start(tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(UserError, match="config.json cannot be read"):
        run_folder.read_config(tmp_path / "run")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="exists and is not a run folder"):
        start(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
