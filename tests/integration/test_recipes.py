"""Every recipe in configs/ trains, resumes and evaluates as `:smoke`."""

import json
from pathlib import Path

import pytest

import configs
from avt_jax.cli import main as cli
from avt_jax.training.checkpoint import load_run

RECIPES = sorted(
    path.stem
    for path in Path(configs.__file__).parent.glob("*.py")
    if path.stem not in ("__init__", "common")
)


def metrics(folder, split):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["split"] == split]


@pytest.mark.parametrize("recipe", RECIPES)
def test_smoke(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    command = ["train", "--config", f"{recipe}:smoke", "--workdir", str(run)]
    assert cli.main(command) == 0, capsys.readouterr().err
    assert [entry["step"] for entry in metrics(run, "train")] == [1, 2, 3]
    assert {"loss", "classification", "contrastive", "lr"} <= metrics(run, "train")[0].keys()
    assert load_run(run).step == 3
    assert cli.main(command) == 0, "a finished run has nothing left to do"
    assert len(metrics(run, "train")) == 3


@pytest.mark.parametrize("modalities", ["audio", "video"])
def test_one_modality(modalities, tmp_path, capsys):
    run = tmp_path / "run"
    code = cli.main(
        ["train", "--config", "quickstart:smoke", "--workdir", str(run),
         f"--config.model.modalities={modalities}"]
    )
    assert code == 0, capsys.readouterr().err
    other = "video_encoder" if modalities == "audio" else "audio_encoder"
    assert not any(other in name for name in load_run(run).params)
    assert "contrastive" not in metrics(run, "train")[0]
