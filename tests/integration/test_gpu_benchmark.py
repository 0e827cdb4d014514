"""benchmarks/gpu.py runs as it stands; on a CPU, on the recipes' :smoke."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from quick_flags import QUICK_FLAGS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def measure(out, *words):
    """Runs the script; returns (rows, what it prints)."""
    command = [sys.executable, str(SCRIPT), "--tiny", "--repeats", "2", "--out", str(out), *words]
    env = os.environ | {"XLA_FLAGS": QUICK_FLAGS}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())["rows"], done.stdout


def test_kernels_and_steps_are_timed(tmp_path):
    rows, page = measure(
        tmp_path / "gpu.json", "--only", "forms", "ours", "--model", "MBT-B", "--limit-min", "9"
    )
    assert not [row["failed"] for row in rows if row.get("failed")]
    forms = [row for row in rows if row["part"] == "forms"]
    assert {row["form"] for row in forms} >= {"plain", "heads"}
    assert sum(row["chosen"] for row in forms) == len({(r["pass"], r["case"]) for r in forms})
    steps = [row for row in rows if row["part"] == "ours"]
    assert [(row["work"], row["batch"]) for row in steps] == [("training", 2), ("inference", 2)]
    for row in rows:
        least, middle, most = row["ms"]
        assert 0 < least <= middle <= most
    assert page.count("| MBT-B |") == len(rows)


def test_what_has_no_time_left_is_said(tmp_path):
    rows, page = measure(tmp_path / "gpu.json", "--limit-min", "0")
    assert {row["failed"] for row in rows} == {"no time was left"} and len(rows) == 6
    assert page.count("no time was left") == 6


@pytest.mark.live_torch
def test_the_twins_are_timed(tmp_path):
    pytest.importorskip("torch")
    rows, page = measure(tmp_path / "gpu.json", "--only", "torch", "--model", "MBT-B")
    assert not [row for row in rows if row.get("failed")]
    assert [row["work"] for row in rows] == ["training", "inference"]


@pytest.mark.live_torch
@pytest.mark.parametrize("model", ["AVT-B", "MBT-B"])
def test_a_twin_has_as_many_numbers_as_ours(model, monkeypatch):
    """Parameters of what both have, so that both do the same products."""
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import argparse

    import gpu

    from avt_jax.experiment.assemble import Experiment

    args = argparse.Namespace(model=[model], tiny=False)
    net, _ = gpu.twin(args, 1)
    skeleton = Experiment(gpu.our_config(args, {}), classes={"label": gpu.CLASSES}).skeleton
    left_out = ("decoder", "contrastive", "match_head", "mask_token")
    ours = {
        path: leaf.size
        for path, leaf in skeleton.params.items()
        if not any(name in path for name in left_out)
    }
    theirs = sum(x.numel() for x in net.parameters())
    assert sum(ours.values()) == theirs
