"""What a training says and logs of held parameters, and of averaged ones beside the raw ones."""

import json

import pytest

import avt_jax
from avt_jax.experiment.config import load_config

BASE = {
    "model": {"modalities": "audio"},
    "data": {"path": "generated:24:label=3", "num_threads": 1},
    "optimizer": {"lr": 0.02, "min_lr": 0.02, "warmup_lr": 0.02, "warmup_steps": 2},
    "train": {"batch_size": 8, "eval_batch_size": 8, "steps": 4, "eval_every_steps": 2},
}
HELD = {"optimizer.held": ("^audio_encoder/",), "optimizer.held_steps": 2}


def run(folder, changes=()):
    """(what was said, {(split, step): metrics}, the result)."""
    said = []
    config = load_config("quickstart:smoke", {**BASE, **dict(changes)})
    result = avt_jax.train(config, folder, say=said.append)
    lines = [json.loads(line) for line in result.metrics_file.read_text().splitlines()]
    return said, {(one["split"], one["step"]): one for one in lines}, result


def test_the_release_is_said_and_logged(tmp_path, capfd):
    said, logged, _ = run(tmp_path, HELD)
    shown = capfd.readouterr().err
    assert any(line.endswith("are held until step 2 (config.optimizer.held)") for line in said)
    assert shown.count("no longer held, at a rate that grows for 2 steps") == 1
    rates = [logged["train", step]["lr_held"] for step in range(1, 5)]
    assert rates == pytest.approx([0.0, 0.0, 0.01, 0.02])
    assert logged["train", 4]["lr"] == pytest.approx(0.02)
    # Gone on with, it neither holds nor says anything of it.
    said, logged, _ = run(tmp_path, HELD | {"train.steps": 6})
    assert not any("held" in line for line in said)
    assert "held" not in capfd.readouterr().err
    assert logged["train", 6]["lr_held"] == pytest.approx(0.02)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(tmp_path_factory.mktemp("plain"))[1]


def test_raw_weights_are_judged_beside_the_averaged_ones(plain, tmp_path, capfd):
    _, logged, result = run(tmp_path, {"optimizer.ema_decay": 0.9})
    shown = capfd.readouterr().err
    names = ("top1/label", "loss/label")
    for step in (2, 4):
        found, without = logged["val", step], plain["val", step]
        # The average has no influence on the training, so these are the metrics of one without.
        for name in names:
            assert found[f"raw/{name}"] == pytest.approx(without[name], rel=1e-6)
        assert found["loss/label"] != pytest.approx(found["raw/loss/label"], rel=1e-4)
        assert not any(name.startswith("raw/") for name in without)
        assert f"raw/loss/label {without['loss/label']:.3f}" in shown
    # The averaged ones choose the checkpoint.
    assert result.best_score == max(logged["val", step]["top1/label"] for step in (2, 4))


def test_raw_weights_are_not_judged_where_that_is_not_asked_for(tmp_path):
    changes = {"optimizer.ema_decay": 0.9, "train.evaluate_raw": False, "train.steps": 2}
    _, logged, _ = run(tmp_path, changes)
    assert "loss/label" in logged["val", 2]
    assert not any(name.startswith("raw/") for name in logged["val", 2])
