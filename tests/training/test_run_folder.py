"""What a run folder says about itself, and that another run cannot slip into it."""

import json

import jax
import pytest

from avt_jax.data.records import RecordsInfo
from avt_jax.errors import UserError
from avt_jax.training import mesh as meshes
from avt_jax.training.run_folder import prepare

CONFIG = {
    "seed": 0,
    "data": {"path": "shards", "clip_sec": 4.0, "crop_scale": (0.5, 1.0), "num_threads": 2},
    "model": {"name": "avt"},
}


def start(folder, *, config=CONFIG, classes=("cat", "dog")):
    info = RecordsInfo({"label": classes}, {"train": 4}, 8.0, 64, 90, "1.0.0")
    mesh = meshes.make_mesh(meshes.MeshConfig(-1, 1, ((".*", "replicate"),)), jax.devices()[:1])
    prepare(folder, config, info, mesh)


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
    data = CONFIG["data"] | {"num_threads": 8, "path": "elsewhere"}
    start(tmp_path / "run", config=CONFIG | {"data": data})


def test_another_config_is_refused(tmp_path):
    start(tmp_path / "run")
    data = CONFIG["data"] | {"clip_sec": 8.0}
    with pytest.raises(UserError, match="config.data.clip_sec was 4.0 and is now 8.0"):
        start(tmp_path / "run", config=CONFIG | {"data": data})


def test_other_classes_are_refused(tmp_path):
    start(tmp_path / "run")
    with pytest.raises(UserError, match="trained on other classes"):
        start(tmp_path / "run", classes=("cat", "dog", "owl"))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="exists and is not a run folder"):
        start(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
