"""A multi-label training from end to end: devices, evaluation, continuation, prediction."""

import json

import jax
import numpy as np
import pytest
from tiny_run import make_run

from avt_jax import Predictor, axes
from avt_jax.cli import main as cli
from avt_jax.data.records.generated import open_generated
from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.experiment.evaluate import evaluate_run
from avt_jax.experiment.run_training import train
from avt_jax.experiment.splits import OwnData
from avt_jax.training import mesh as meshes

DATA = "generated:20:label=6+"


def smoke(**more):
    return load_config("quickstart:smoke", {"data.path": DATA, **more})


def test_one_device_and_eight_agree():
    mixing = {"mixing.mixup_alpha": 0.8, "losses.weights": {"classification": 2.0}}
    found = []
    for devices in (jax.devices()[:1], jax.devices()):
        terms = dict.fromkeys(("contrastive", "matching", "masked_audio"), 0.0)
        config = smoke(**mixing | {"losses.weights": {"classification": 2.0, **terms}})
        experiment = Experiment(config, devices=devices)
        state, places = experiment.init_state()
        step = experiment.packed_step(places, state)
        state = step.pack(state)
        batches = experiment.train_batches()
        losses = []
        for _ in range(2):
            batch = next(batches)
            assert batch[axes.LABELS]["label"].shape == (8, 6)
            on_device = meshes.to_device(batch, experiment.mesh)
            state, metrics = step(state, on_device, jax.random.key(1))
            losses.append([float(total) for total, _ in metrics.values()])
        batches.close()
        values, score = experiment.evaluate(step.unpack(state), lambda: 0)
        assert score == values["mAP/label"]
        found.append((np.array(losses), values))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-5)
    for name, value in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], value, rtol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("multi_label") / "run"
    result = train(smoke(), folder)
    assert result.best_score == pytest.approx(result.metrics["val/mAP/label"])
    assert "val/top1/label" not in result.metrics and "train/hit1/label" in result.metrics
    return folder


def test_evaluation_and_its_files(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["evaluate", "--checkpoint", str(run), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "mAP, no audio" in printed and "label: mu " in printed and "AUC" in printed
    assert "classes_label.csv" in printed and "confusion" not in printed
    names = {path.name for path in out.iterdir()}
    assert {"classes_label.csv", "classes_label.png", "results.json", "clips.csv"} <= names
    label = json.loads((out / "results.json").read_text())["label"]
    assert label["count"] == 20 and 0 < label["mAP"] <= 1
    assert label["audio_silenced"].keys() == {"mAP", "auc", "hit1"}
    assert 0 <= label["fusion"]["mu_each"] <= label["fusion"]["mu"] <= 1
    # Other batches, and so other padding, change nothing.
    again = evaluate_run(run, batch_size=3, write=False).results["label"]
    assert again["mAP"] == pytest.approx(label["mAP"], rel=1e-6)
    assert again["classes"][0]["count"] == label["classes"][0]["count"]


def test_probabilities_are_independent(run):
    predictor = Predictor(run)
    assert predictor.multi_label == ("label",)
    batch = next(iter(Experiment(smoke()).train_batches()))
    p_by = predictor.predict_batch(batch)["label"]
    assert p_by.shape == (8, 6) and not np.allclose(p_by.sum(1), 1)
    assert ((p_by > 0) & (p_by < 1)).all()


def test_a_run_keeps_its_kind_of_labels(run):
    with pytest.raises(UserError, match="was trained with the multi-label sets"):
        train(smoke(**{"data.path": "generated:20:label=6"}), run)


def test_single_label_models_are_judged_on_several_labels(tmp_path):
    folder = make_run(tmp_path / "run", ["--config.data.path=generated:20:label=6"])
    info, made = open_generated(DATA, "test")
    own = OwnData(info.label_sets, made, made, multi_label=("label",))
    found = evaluate_run(folder, data=own, write=False)
    assert found.results["label"]["count"] == 20 and "mAP" in found.results["label"]
    assert not found.top1 and 0 < found.score["label"] <= 1


def test_clips_from_python(tmp_path):
    info, made = open_generated(DATA, "train")
    own = OwnData(info.label_sets, made, made, multi_label=("label",))
    assert Experiment(smoke(), data=own).multi_label == ("label",)
    batch = next(Experiment(smoke(), data=own).train_batches())
    assert batch[axes.LABELS]["label"].shape == (8, 6)
    own = OwnData(info.label_sets, [batch], [batch], multi_label=("label",))
    experiment = Experiment(smoke(), data=own)
    assert next(experiment.train_batches())[axes.LABELS]["label"].dtype == np.int32
    wrong = OwnData(info.label_sets, made, multi_label=("tags",))
    with pytest.raises(UserError, match="no label set"):
        _ = Experiment(smoke(), data=wrong).splits
