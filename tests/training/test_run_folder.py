"""What a run folder says about itself, what may change in it, and that no other run slips in."""

import json

import jax
import pytest

from avt_jax.data.records import RecordsInfo
from avt_jax.errors import UserError
from avt_jax.training import mesh as meshes
from avt_jax.training import run_folder
from avt_jax.training.run_folder import Change, check_continuation, differences, record_changes

CONFIG = {
    "seed": 0,
    "data": {"path": "shards", "clip_sec": 4.0, "crop_scale": (0.5, 1.0), "num_threads": 2},
    "model": {"name": "avt", "video_encoder": {"remat": False, "name": "vit"}},
    "optimizer": {"name": "adamw", "lr": 0.1},
}


def info(classes=("cat", "dog")):
    return RecordsInfo({"label": classes}, {"train": 4}, 8.0, 64, 90, "1.0.0")


def prepare(folder, config=CONFIG):
    mesh = meshes.make_mesh(meshes.MeshConfig(-1, 1, ((".*", "replicate"),)), jax.devices()[:1])
    run_folder.prepare(folder, config, info(), mesh)
    return folder


def with_checkpoint(folder):
    (folder / "checkpoints" / "3").mkdir(parents=True)
    return folder


def changed(**fields):
    """CONFIG with fields of its blocks replaced: data__path="b"."""
    config = json.loads(json.dumps(CONFIG))
    for name, value in fields.items():
        *path, last = name.split("__")
        block = config
        for key in path:
            block = block[key]
        block[last] = value
    return config


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_writes_config_and_facts(tmp_path):
    folder = prepare(tmp_path / "some" / "run")
    facts = read(folder, "run.json")
    assert run_folder.read_config(folder)["data"]["crop_scale"] == [0.5, 1.0]
    assert facts["label_sets"] == {"label": ["cat", "dog"]}
    assert facts["records"] == {
        "frame_rate_hz": 8.0,
        "short_side_px": 64,
        "jpeg_quality": 90,
        "schema_version": "1.0.0",
    }
    assert facts["versions"]["jax"] == jax.__version__ and facts["devices"]["count"] == 1
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "run.json"]


def test_what_a_run_was_started_with_stays_once_it_has_a_checkpoint(tmp_path):
    folder = prepare(tmp_path / "run")
    prepare(folder, changed(seed=1))
    assert run_folder.read_config(folder)["seed"] == 1, "nothing was trained yet"
    prepare(with_checkpoint(folder), changed(seed=2))
    assert run_folder.read_config(folder)["seed"] == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="exists and is not a run folder"):
        prepare(tmp_path)
    with pytest.raises(UserError, match="exists and is not a run folder"):
        prepare(tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    prepare(tmp_path / "empty")


def test_differences_name_every_field_in_the_order_of_the_config():
    now = changed(data__path="b", model__video_encoder__remat=True, optimizer__lr=0.2)
    del now["seed"]
    now["new"] = {"field": 1}
    assert differences(CONFIG, now) == [
        Change("data.path", "shards", "b"),
        Change("model.video_encoder.remat", False, True),
        Change("optimizer.lr", 0.1, 0.2),
        Change("new", None, {"field": 1}),
        Change("seed", 0, None),
    ]
    # A tuple is the list that JSON makes of it.
    assert differences(CONFIG, changed()) == differences(changed(), CONFIG) == []


@pytest.mark.parametrize(
    ("name", "may_change"),
    [
        ("train.batch_size", True),
        ("optimizer.lr", True),
        ("optimizer.warmup_examples", True),
        ("optimizer.name", False),
        ("optimizer.ema_decay", False),
        ("data.path", True),
        ("data.max_damaged", True),
        ("data.eval_batch", True),
        ("data.clip_sec", False),
        ("model.precision", True),
        ("model.kernels", True),
        ("model.remat", True),
        ("model.video_encoder.remat", True),
        ("model.dim", False),
        ("model.video_encoder.name", False),
        ("losses.warmup_steps", True),
        ("losses.weights.matching", False),
        ("masking.strategy", False),
        ("init.model", True),
        ("mesh.fsdp", True),
        ("seed", False),
        ("my_train.steps", False),
    ],
)
def test_what_may_change(name, may_change):
    assert Change(name, 1, 2).may_change == may_change


def test_a_run_goes_on_with_what_may_change(tmp_path):
    folder = prepare(tmp_path / "run")
    asked = []
    for now in (CONFIG, changed(optimizer__lr=1.0, data__path="elsewhere", data__num_threads=8)):
        check_continuation(folder, CONFIG, now, info(), lambda: asked.append(1) or True)
    assert asked == [], "whether the weights would fit is costly to find out"


@pytest.mark.parametrize("fits", [True, False])
def test_what_may_not_change_is_refused_with_a_way_out(tmp_path, fits):
    folder = prepare(tmp_path / "run")
    now = changed(optimizer__lr=1.0, data__clip_sec=8.0, model__name="mbt")
    with pytest.raises(UserError) as caught:
        check_continuation(folder, CONFIG, now, info(), lambda: fits)
    message = str(caught.value)
    assert "config.data.clip_sec was 4.0 and is now 8.0 (and 1 more)" in message
    # Followed, it leads to no other refusal.
    assert "or give --config.data.clip_sec=4.0 --config.model.name=avt to continue" in message
    assert (f"--config.init.model={folder}" in message) == fits
    with pytest.raises(UserError, match=r"is now 8.0, which cannot"):
        check_continuation(folder, CONFIG, changed(data__clip_sec=8.0), info(), lambda: fits)


def test_other_classes_are_refused(tmp_path):
    folder = prepare(tmp_path / "run")
    message = r"trained on other classes \(\{'label': 2\}\) than these shards have \(\{'label': 3\}"
    with pytest.raises(UserError, match=message):
        check_continuation(folder, CONFIG, CONFIG, info(("cat", "dog", "owl")), lambda: True)
    with pytest.raises(UserError, match="trained on other classes"):
        check_continuation(folder, CONFIG, CONFIG, info(("dog", "cat")), lambda: True)


def test_changes_are_recorded_with_their_step(tmp_path):
    folder = prepare(tmp_path / "run")
    first, second = changed(optimizer__lr=0.2), changed(optimizer__lr=0.3, data__path="b")
    record_changes(folder, first, differences(CONFIG, first), 7)
    record_changes(folder, second, differences(first, second), 9)
    record_changes(folder, changed(seed=5), [], 11)
    assert read(folder, "run.json")["changes"] == [
        {"step": 7, "name": "optimizer.lr", "before": 0.1, "after": 0.2},
        {"step": 9, "name": "data.path", "before": "shards", "after": "b"},
        {"step": 9, "name": "optimizer.lr", "before": 0.2, "after": 0.3},
    ]
    assert run_folder.read_config(folder) == second
    assert read(folder, "run.json")["label_sets"] == {"label": ["cat", "dog"]}
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "run.json"]


@pytest.mark.parametrize("content", [None, "{", "[1]"], ids=["missing", "cut", "no object"])
def test_unreadable_files_are_named(tmp_path, content):
    folder = prepare(tmp_path / "run")
    (folder / "config.json").unlink()
    if content:
        (folder / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config.json cannot be read \(.+\); use another"):
        run_folder.read_config(folder)
