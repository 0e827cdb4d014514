"""A run killed with SIGKILL and resumed ends with the parameters of one that never was."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np

from avt_jax.training.checkpoint import load_run

STEPS = 12
OVERRIDES = [
    "--config.data.path=generated:20:label=4",
    f"--config.train.steps={STEPS}",
    "--config.train.eval_every_steps=12",
    "--config.train.checkpoint_every_steps=2",
    "--config.optimizer.ema_decay=0.9",
    "--config.model.drop_path=0.2",
]


def start(folder):
    command = [
        sys.executable,
        "-m",
        "avt_jax.cli.train",
        "--config",
        "quickstart:smoke",
        "--workdir",
        str(folder),
        *OVERRIDES,
    ]
    env = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)


def finish(process):
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error.decode()


def logged_steps(folder):
    file = folder / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


def test_killed_and_resumed_equals_never_killed(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    finish(start(straight))

    # A random step, another one in every test run: the kill may fall anywhere, into a save too.
    kill_at = int(np.random.default_rng().integers(3, STEPS - 1))
    process = start(killed)
    while process.poll() is None and max(logged_steps(killed), default=0) < kill_at:
        time.sleep(0.005)
    assert process.poll() is None, process.stderr.read().decode()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert max(logged_steps(killed)) < STEPS

    finish(start(killed))
    expected, found = load_run(straight, "last"), load_run(killed, "last")
    assert expected.step == found.step == STEPS, f"killed at {kill_at}"
    for group in ("params", "stats"):
        for name, value in getattr(expected, group).items():
            np.testing.assert_array_equal(
                value, getattr(found, group)[name], err_msg=f"{name}, killed at {kill_at}"
            )
    losses = [
        [
            (e["step"], e["loss"])
            for e in map(json.loads, (f / "metrics.jsonl").open())
            if e["split"] == "train"
        ]
        for f in (straight, killed)
    ]
    assert losses[0] == losses[1]
