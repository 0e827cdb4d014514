"""Weights & Biases and MLflow, with modules in their places that note what they are told."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from toy_run import logged

import avt_jax
from avt_jax.errors import UserError
from avt_jax.training.loop import TrainConfig
from avt_jax.training.observing.trackers import check_installed, open_trackers
from avt_jax.training.writer import MetricWriter

IMAGE = np.zeros((2, 3, 3), np.uint8)


@pytest.fixture
def wandb(monkeypatch):
    told = []

    def init(**options):
        told.append(("init", options))
        return SimpleNamespace(
            log=lambda values, step: told.append((step, values)),
            finish=lambda: told.append("finish"),
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Image=lambda x: x.shape))
    return told


@pytest.fixture
def mlflow(monkeypatch):
    told = []

    def start_run(**options):
        told.append(("start", options))
        return SimpleNamespace(info=SimpleNamespace(run_id=options["run_id"] or "new"))

    fake = SimpleNamespace(
        start_run=start_run,
        log_dict=lambda content, name: told.append((name, content)),
        log_metrics=lambda values, step: told.append((step, values)),
        log_image=lambda image, key, step: told.append((step, {key: image.shape})),
        end_run=lambda: told.append("finish"),
    )
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return told


def written(folder, *names):
    """Writes one line and one image to the services."""
    opened = open_trackers(("jsonl", *names), folder, {"seed": 3})
    writer = MetricWriter(folder, step=0, tensorboard=False, trackers=opened)
    writer.write(4, "train", {"loss": 1.5})
    writer.write_image(4, "picture", IMAGE)
    writer.close()


def test_wandb_goes_on_in_the_same_run(tmp_path, wandb):
    written(tmp_path, "wandb")
    (_, options), *rest = wandb
    assert options["config"] == {"seed": 3} and options["resume"] == "allow"
    assert options["name"] == tmp_path.name
    assert rest == [(4, {"train/loss": 1.5}), (4, {"val/picture": (2, 3, 3)}), "finish"]
    written(tmp_path, "wandb")
    assert wandb[4][1]["id"] == options["id"]
    assert not (tmp_path / "tensorboard").exists()


def test_mlflow_goes_on_in_the_same_run(tmp_path, mlflow):
    written(tmp_path, "mlflow")
    assert mlflow == [
        ("start", {"run_id": None, "run_name": tmp_path.name}),
        ("config.json", {"seed": 3}),
        (4, {"train/loss": 1.5}),
        (4, {"val/picture": (2, 3, 3)}),
        "finish",
    ]
    written(tmp_path, "mlflow")
    assert mlflow[5] == ("start", {"run_id": "new", "run_name": tmp_path.name})


def test_one_that_fails_on_the_way_ends_nothing(tmp_path, mlflow, monkeypatch, capsys):
    def fails(values, step):
        mlflow.append(step)
        raise ConnectionError("no route")

    monkeypatch.setattr(sys.modules["mlflow"], "log_metrics", fails)
    opened = open_trackers(("mlflow",), tmp_path, {})
    writer = MetricWriter(tmp_path, step=0, trackers=opened)
    for step in (1, 2):
        writer.write(step, "train", {"loss": 1.5})
    writer.close()
    assert [entry["step"] for entry in logged(tmp_path, "train")] == [1, 2]
    assert mlflow[2:] == [1], "it is asked once"
    err = capsys.readouterr().err
    assert err.count("mlflow gets no more of this run") == 1 and "no route" in err


def test_one_that_does_not_start_is_an_error(tmp_path, wandb, monkeypatch):
    def init(**options):
        raise RuntimeError("not logged in")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    with pytest.raises(UserError, match=r"wandb does not start \(.*not logged in"):
        open_trackers(("wandb",), tmp_path, {})


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_one_that_is_not_installed_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not
    check_installed(("jsonl", "tensorboard"))
    config = avt_jax.load_config("quickstart:smoke", {"train.writers": ("jsonl", name)})
    with pytest.raises(UserError, match=rf"{name!r}, which is not installed; .*avt_jax\[{name}\]"):
        avt_jax.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_config_asks_for_metrics_jsonl_and_knows_the_names():
    with pytest.raises(UserError, match="name 'jsonl' too"):
        TrainConfig.of({"writers": ("tensorboard",)})
    with pytest.raises(UserError, match="config.train.writers"):
        TrainConfig.of({"writers": ("jsonl", "wandbb")})
