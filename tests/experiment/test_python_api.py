"""The whole way in Python, as docs/python.md shows it, and trainings on data from Python."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tiny_run import write_video

import avt_jax
from avt_jax import experiment
from avt_jax.audio.melspec import LOG_FLOOR
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.loading.sampling import eval_example

SMALL = {"train": {"batch_size": 8, "eval_batch_size": 8, "eval_every_steps": 10}}


def test_importing_is_quick_and_starts_nothing():
    code = (
        "import sys, time; began = time.perf_counter(); import avt_jax\n"
        "assert time.perf_counter() - began < 0.3\n"
        "assert not {'jax', 'numpy', 'flax', 'tensorflow_datasets'} & set(sys.modules)\n"
        "assert 'Predictor' in dir(avt_jax)\n"
        "avt_jax.load_config('quickstart:smoke')\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_every_public_name_is_there():
    for package in (avt_jax, experiment):
        for name in package.__all__:
            assert getattr(package, name) is not None and name in dir(package)
    # The functions, not modules of their names.
    assert experiment.train is avt_jax.train and experiment.evaluate_run is avt_jax.evaluate
    assert callable(experiment.train) and callable(avt_jax.train)
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        _ = avt_jax.predict


def test_train_evaluate_predict_embed(tmp_path):
    config = avt_jax.load_config(
        "quickstart:smoke",
        {
            "data.path": "generated:16:label=3",
            "train": SMALL["train"] | {"steps": 20, "log_every_steps": 5},
        },
    )
    said = []
    result = avt_jax.train(config, tmp_path / "run", say=said.append)
    assert int(result.state.step) == 20 and 0 <= result.best_score <= 1
    assert {"train/loss", "val/top1/label"} <= result.metrics.keys()
    logged = [json.loads(line) for line in result.metrics_file.read_text().splitlines()]
    assert [e["step"] for e in logged if e["split"] == "train"] == [5, 10, 15, 20]
    scores = [e["top1/label"] for e in logged if e["split"] == "val"]
    assert result.best_score == max(scores) and len(scores) == 2
    assert any("16 training clips and 16 validation clips" in line for line in said)

    found = avt_jax.evaluate(result.run_dir, split="val", step="last")
    assert found.top1["label"] == scores[-1]
    assert {file.name for file in found.files} >= {"results.json", "confusion_label.png"}

    predictor = avt_jax.Predictor(result.run_dir)
    video = write_video(tmp_path / "film.mp4", video_sec=2.5, audio_sec=2.5)
    prediction = predictor.predict_file(video)
    assert sum(p for _, p in prediction.top(3)["label"]) == pytest.approx(1, abs=1e-5)
    embedded = predictor.embed(video)
    assert embedded.vectors.keys() == {"video", "audio", "fused"}
    windows = len(prediction.windows)
    assert embedded.vectors["video"].shape == (windows, config.model.projection_dim)
    assert embedded.vectors["fused"].shape == (windows, 2 * config.model.dim)
    assert len(np.unique(embedded.vectors["audio"], axis=0)) > 1, "windows differ"


def own_records(count, seed):
    """Clips whose class is how bright they are and how high they sound."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(count):
        label = i % 2
        frames = rng.integers(0, 60, (8, 40, 40, 3)) + 150 * label
        time = np.arange(16000) / 16000
        wave = 0.3 * np.sin(2 * np.pi * (300, 3000)[label] * time)
        records.append(
            avt_jax.record_from_arrays(
                frames.astype(np.uint8),
                frame_rate_hz=8.0,
                waveform=wave,
                labels={"label": label},
                id=f"clip {seed} {i}",
            )
        )
    return records


CLASSES = {"label": ("dark and low", "bright and high")}


def test_own_arrays_are_learned(tmp_path):
    data = avt_jax.OwnData(CLASSES, own_records(32, 0), own_records(8, 1))
    config = avt_jax.load_config(
        "quickstart:smoke",
        {
            "train": SMALL["train"] | {"steps": 30},
            "optimizer": {"lr": 3e-3, "warmup_steps": 3},
            "model.modalities": "audio",
            "data.audio_mean": -8.0,
        },
    )
    result = avt_jax.train(config, tmp_path / "run", data=data)
    assert result.best_score == 1.0
    found = avt_jax.evaluate(result.run_dir, data=data)
    assert found.top1 == {"label": 1.0}
    assert found.results["label"]["classes"][0]["name"] == "dark and low"
    # The next call finds nothing left to do; more steps go on.
    said = []
    avt_jax.train(config, tmp_path / "run", data=data, say=said.append)
    assert any("already finished" in line for line in said)


def batches_of(count, size=8):
    rng = np.random.default_rng(5)
    for _ in range(count):
        label = rng.integers(0, 2, size)
        yield {
            "video": rng.integers(0, 256, (size, 4, 32, 32, 3), np.uint8),
            "audio": rng.normal(-5, 3, (size, 100, 128)).astype(np.float32),
            "labels": {"label": label},
        }


class Counted:
    """Batches that know where they are."""

    def __init__(self):
        self.all, self.position = list(batches_of(8)), 0

    def __iter__(self):
        return self

    def __next__(self):
        self.position += 1
        return self.all[(self.position - 1) % 8]

    def get_state(self):
        return self.position

    def set_state(self, state):
        self.position = state


@pytest.mark.parametrize("make", [lambda: list(batches_of(8)), Counted], ids=["list", "state"])
def test_own_batches_go_on_where_they_stopped(tmp_path, make):
    def run(folder, steps):
        config = avt_jax.load_config(
            "quickstart:smoke",
            {
                "train": SMALL["train"] | {"steps": steps},
                "optimizer.warmup_epochs": 0.0,
                "model.modalities": "audio",
            },
        )
        data = avt_jax.OwnData(CLASSES, make(), list(batches_of(2)))
        return avt_jax.train(config, folder, data=data)

    whole = run(tmp_path / "whole", 12)
    run(tmp_path / "parts", 12 - 5)
    # The learning rate's schedule depends on the length: compare what was seen, not the weights.
    continued = run(tmp_path / "parts", 12)
    read = [
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1])
        for name in ("whole", "parts")
    ]
    assert int(whole.state.step) == int(continued.state.step) == 12
    assert read[0].keys() == read[1].keys()


def without(batch, name):
    return {key: value for key, value in batch.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: without(b, "audio"), "a batch has no 'audio'"),
        (lambda b: {k: v[:2] for k, v in without(b, "labels").items()}
            | {"labels": {"label": b["labels"]["label"][:2]}}, "batch 0 has 2 clips"),
    ],
)  # fmt: skip
def test_wrong_batches_are_named(tmp_path, change, message):
    data = avt_jax.OwnData(CLASSES, [change(next(batches_of(1)))])
    config = avt_jax.load_config("quickstart:smoke", SMALL)
    with pytest.raises(avt_jax.UserError, match=message):
        avt_jax.train(config, tmp_path / "run", data=data)


def test_an_iterator_that_ends_is_said(tmp_path):
    data = avt_jax.OwnData(CLASSES, batches_of(2))
    config = avt_jax.load_config("quickstart:smoke", SMALL)
    with pytest.raises(avt_jax.UserError, match="ended after 2; give one that goes on"):
        avt_jax.train(config, tmp_path / "run", data=data)


def test_silent_clips_are_noticed(tmp_path):
    from avt_jax.experiment.own_batches import checked
    from avt_jax.models.inputs import InputSpec

    batch = next(batches_of(1))
    batch["audio"][1] = LOG_FLOOR
    found = checked(batch, InputSpec(4, 32, 100, 128), {"label": 2}, 8)
    assert found["has_audio"].tolist() == [True, False] + [True] * 6
    assert found["valid"].all() and len(set(found["group"].tolist())) == 8


def test_a_record_of_sound_alone():
    record = avt_jax.record_from_arrays(
        None, frame_rate_hz=8.0, fbank_sf=np.zeros((100, 128)), labels={"label": 0}, id="x"
    )
    assert record["frames"] == [] and record["has_audio"] and record["end_sec"] == 1.0
    data = DataConfig(num_frames=2, clip_sec=1.0, frame_size_px=16)
    assert not eval_example(record, data)["has_video"]
    with pytest.raises(avt_jax.UserError, match="has neither frames nor sound"):
        avt_jax.record_from_arrays(None, frame_rate_hz=8.0, labels={}, id="x")
