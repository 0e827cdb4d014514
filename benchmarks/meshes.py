"""Trains the same on several meshes and numbers of processes, and compares.

    python benchmarks/meshes.py

The quickstart's smallest model in float32, 20 steps with the same seed and global batch: on one CPU
device, on 8 simulated ones as 8x1, 4x2 and 1x8 (data x fsdp), and in 2 and 4 real processes that
talk by gloo. Printed: the largest relative difference of any training metric from one device's,
whether every evaluation is equal to the digit, and what lies on a device.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# name: (processes, simulated devices of each, fsdp).
MESHES = {
    "1x1": (1, 1, 1),
    "8x1": (1, 8, 1),
    "4x2": (1, 8, 2),
    "1x8": (1, 8, 8),
    "2 processes, 2x1": (2, 1, 1),
    "2 processes, 1x2": (2, 1, 2),
    "4 processes, 2x2": (4, 1, 2),
}


def main() -> int:
    """Trains on every mesh, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    print("| mesh | largest relative difference | evaluations equal | MiB on a device |")
    print("|---|---|---|---|")
    expected: dict[Any, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (count, devices, fsdp)) in enumerate(MESHES.items()):
            workdir = Path(folder) / str(number)
            said = train(workdir, count, devices, fsdp, args.steps)
            found = logged(workdir)
            expected = expected or found
            size = re.search(r"optimiser ([0-9.]+) MiB on each", said)
            assert size and found.keys() == expected.keys(), said
            print(f"| {name} | {difference(found, expected):.1e} | ", end="")
            print(f"{equal(found, expected)} | {size[1]} |", flush=True)
    return 0


def train(workdir: Path, count: int, devices: int, fsdp: int, steps: int) -> str:
    """What the first process prints."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    changes = {
        "data.path": "generated:22:label=4",
        "train.batch_size": 8,
        "train.eval_batch_size": 8,
        "train.steps": steps,
        "train.eval_every_steps": 5,
        "train.log_every_steps": 1,
        "model.drop_path": 0.2,
        "optimizer.lr": 1e-3,
        "mesh.fsdp": fsdp,
        "mesh.min_cut_mb": 0,
    }
    command = [sys.executable, "-m", "avt_jax", "train", "--config", "quickstart:smoke"]
    command += ["--workdir", str(workdir)]
    command += [f"--config.{name}={value}" for name, value in changes.items()]
    flags = f"--xla_force_host_platform_device_count={devices}"
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    processes = []
    for i in range(count):
        told = ["--coordinator", f"localhost:{port}", "--num-processes", str(count)]
        words = [*command, *told, "--process-id", str(i)] if count > 1 else command
        processes.append(
            subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        )
    said = [process.communicate()[0].decode() for process in processes]
    assert not any(process.returncode for process in processes), said
    return said[0]


def logged(workdir: Path) -> dict[Any, dict[str, float]]:
    """{(step, split): metrics}."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {(one.pop("step"), one.pop("split")): one for one in map(json.loads, lines)}


def difference(found: Any, expected: Any) -> float:
    """The largest of the training metrics, relative."""
    return max(
        abs(found[key][name] - value) / max(abs(value), 1e-12)
        for key, values in expected.items()
        if key[1] == "train"
        for name, value in values.items()
        if name != "clips_per_sec"
    )


def equal(found: Any, expected: Any) -> bool:
    """Whether all evaluations are the same."""
    return all(found[key] == values for key, values in expected.items() if key[1] == "val")


if __name__ == "__main__":
    sys.exit(main())
