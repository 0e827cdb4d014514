"""Every recipe in configs/ trains as `:smoke`; test_datasets.py has those of MBT."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from quick_flags import QUICK_FLAGS

import configs
from avt_jax.training.checkpoint import load_run

ELSEWHERE = {
    "mbt_kinetics_sounds",
    "mbt_vggsound",
    "mbt_epic_kitchens_100",
    "mbt_audioset",  # test_multi_label_run.py
}
RECIPES = sorted(
    path.stem
    for path in Path(configs.__file__).parent.glob("*.py")
    if path.stem not in {"__init__", "common"} | ELSEWHERE
)


def metrics(folder, split):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["split"] == split]


def train(recipe, folder, *overrides):
    """Runs `avt train` as a user would: in a process of its own, on one device.

    The program is barely optimised: it runs for three steps and is compiled for longer.
    """
    command = [sys.executable, "-m", "avt_jax.cli.train", "--config", f"{recipe}:smoke"]
    result = subprocess.run(
        [*command, "--workdir", str(folder), *overrides],
        env=os.environ | {"XLA_FLAGS": QUICK_FLAGS},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("recipe", RECIPES)
def test_smoke(recipe, tmp_path):
    run = tmp_path / "run"
    train(recipe, run)
    assert [entry["step"] for entry in metrics(run, "train")] == [1, 2, 3]
    expected = {"loss", "classification", "lr"} | ({"contrastive"} if recipe != "own" else set())
    assert expected <= metrics(run, "train")[0].keys()
    assert load_run(run).step == 3


@pytest.mark.parametrize("modalities", ["audio", "video"])
def test_one_modality(modalities, tmp_path):
    run = tmp_path / "run"
    said = train("quickstart", run, f"--config.model.modalities={modalities}")
    assert "left out with one modality: contrastive" in said
    other = "video_encoder" if modalities == "audio" else "audio_encoder"
    assert not any(other in name for name in load_run(run).params)
    assert "contrastive" not in metrics(run, "train")[0]
    said = train("quickstart", run, f"--config.model.modalities={modalities}")
    assert "already finished: step 3 of 3" in said
    assert len(metrics(run, "train")) == 3, "a finished run has nothing left to do"
