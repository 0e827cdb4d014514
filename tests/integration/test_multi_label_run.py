"""A multi-label training from end to end: devices, evaluation, continuation, prediction."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from published import (
    AUDIOSET_CLASSES,
    write_audioset,
    write_audioset_classes,
    write_vggsound,
    write_vggsounder,
)
from tiny_run import make_run, write_video

from avt_jax import Predictor, axes
from avt_jax.cli import main as cli
from avt_jax.data import records
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
    """MBT's recipe, which mixes clips: it compiles several times faster than AVT's."""
    changes = {"data.path": DATA, "optimizer.lr": 1e-3, "losses.weights.classification": 1.0}
    return load_config("mbt_audioset:smoke", changes | more)


def test_one_device_and_eight_agree():
    found = []
    for devices in (jax.devices()[:1], jax.devices()):
        experiment = Experiment(smoke(), devices=devices)
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
    low, high = label["mAP_interval"]
    assert low <= label["mAP"] <= high and label["draws"] == 2000 and label["sources"] == 10
    low, high = label["ahead_of_baseline_interval"]
    assert low <= label["mAP"] - label["baseline_mAP"] <= high and 0 < label["train_mAP"] <= 1
    assert "model minus baseline" in printed and "mAP, scores that say nothing" in printed
    assert printed.splitlines()[-1].startswith("label: the model ")
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


def run_command(*words):
    assert cli.main([str(word) for word in words]) == 0


@pytest.fixture
def videos(tmp_path, monkeypatch):
    """(a folder, a function that puts a video of 2 s with a tone into it under some names)."""
    monkeypatch.chdir(tmp_path)
    one_device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: one_device)
    (tmp_path / "videos").mkdir()
    clip = write_video(tmp_path / "clip.mp4", video_sec=2.0, audio_sec=2.0, size_px=48)

    def place(*names):
        for name in names:
            shutil.copy(clip, tmp_path / "videos" / name)

    return place


def test_audioset_from_its_files_to_results(videos, tmp_path):
    speech, _, music, dog, _ = (mid for mid, _ in AUDIOSET_CLASSES)
    rows = [(f"--{i}_vvvvvvv", 0, 10, [[speech, dog], [music], [dog]][i % 3]) for i in range(6)]
    write_audioset(Path("balanced_train_segments.csv"), rows)
    write_audioset(Path("eval_segments.csv"), [(i[::-1], 0, 10, m) for i, _, _, m in rows[:4]])
    write_audioset_classes(Path("class_labels_indices.csv"))
    videos(*(f"{i}_0_10000.mp4" for i, *_ in rows), *(f"{i[::-1]}.mp4" for i, *_ in rows[:4]))
    run_command(
        "manifest", "audioset", "--csv", "balanced_train_segments.csv", "--csv",
        "eval_segments.csv", "--classes", "label=class_labels_indices.csv", "--videos", "videos",
    )  # fmt: skip
    run_command("extract", "--manifest", "clips.csv", "--out", "shards", "--workers", 1,
                "--classes", "label=clips.classes-label.txt")  # fmt: skip
    info = records.read_info("shards")
    assert info.multi_label == ("label",) and info.splits == {"train": 6, "test": 4}
    run_command("train", "--config", "mbt_audioset:smoke", "--workdir", "run",
                "--config.data.path=shards", "--config.train.steps=2",
                "--config.data.eval_split=test")  # fmt: skip
    run_command("evaluate", "--checkpoint", "run", "--out", "out")
    label = json.loads(Path("out/results.json").read_text())["label"]
    assert label["count"] == 4 and label["num_absent"] == 2 and 0 < label["mAP"] <= 1
    assert [one["count"] for one in label["classes"]] == [2, 0, 1, 3, 0]
    assert cli.main(["doctor", "shards"]) == 1  # all clips are copies of one
    run_command("inspect", "shards")
    run_command("embed", "shards", "--checkpoint", "run", "--out", "index.npz", "--split", "test")
    with np.load("index.npz") as index:
        assert index["label"].tolist() == ["Speech|Dog", "Music", "Dog", "Speech|Dog"]


def test_vggsounder_judges_a_model_of_vggsound(videos, tmp_path, capsys):
    labels = ("dog barking", "hail", "people crowd")
    rows = [(f"--{n}_vvvvvvv", n, labels[n % 3], "train") for n in range(6)]
    rows += [(f"{n}_test-test", 30, labels[n], "test") for n in range(2)]
    write_vggsound(Path("vggsound.csv"), rows)
    videos(*(f"{i}_{start:06d}.mp4" for i, start, *_ in rows))
    ids = ("0_test-test_000030", "1_test-test_000030")
    tags = [(ids[0], "dog barking", "AV"), (ids[0], "hail", "A"), (ids[1], "people crowd", "V")]
    write_vggsounder(Path("vggsounder.csv"), tags)
    for name, classes in (("vggsound", []), ("vggsounder", ["--classes", "label=vggsound.txt"])):
        words = ["--csv", f"{name}.csv", "--videos", "videos", "--out", f"{name}_clips.csv"]
        run_command("manifest", name, *words, *classes)
        if not classes:
            shutil.copy("vggsound_clips.classes-label.txt", "vggsound.txt")
        run_command("extract", "--manifest", f"{name}_clips.csv", "--out", name, "--workers", 1,
                    "--classes", "label=vggsound.txt")  # fmt: skip
    run_command("train", "--config", "mbt_vggsound:smoke", "--workdir", "run",
                "--config.data.path=vggsound", "--config.train.steps=2",
                "--config.data.eval_split=test")  # fmt: skip
    capsys.readouterr()
    run_command("evaluate", "--checkpoint", "run", "--data", "vggsounder", "--out", "out")
    assert "label: mu " in capsys.readouterr().out
    label = json.loads(Path("out/results.json").read_text())["label"]
    assert label["count"] == 2 and [one["count"] for one in label["classes"]] == [1, 1, 1]
    # The authors' hit rate and F1 of the three best of three classes: all of them.
    assert label["hits"]["3"] == 1 and label["f1"]["3"] == pytest.approx(2 * 3 / (2 * 3 + 3))
    assert 0 <= label["hits"]["1"] <= 1
