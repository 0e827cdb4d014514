"""A state goes from mesh to mesh and from job to job, and stays the same leaf by leaf."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from job import free_port
from quick_flags import QUICK_FLAGS

STAGE = Path(__file__).with_name("restore_stage.py")


def run_stage(workdir, *, devices, fsdp, processes=1):
    words = [sys.executable, str(STAGE), "--workdir", str(workdir), "--fsdp", str(fsdp)]
    flags = f"{QUICK_FLAGS} --xla_force_host_platform_device_count={devices}"
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    told = ["--coordinator", f"localhost:{free_port()}", "--num-processes", str(processes)]
    started = [
        subprocess.Popen(
            [*words, *([*told, "--process-id", str(i)] if processes > 1 else [])],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    said = [process.communicate(timeout=240)[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes
    # Gloo says something, too.
    return said[0].splitlines()[-1]


def stored(workdir, step):
    """{path: array} of a checkpoint, but for the number of its step."""
    path = workdir / "checkpoints" / str(step) / "state"
    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.metadata(path).item_metadata.tree
        restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        found = reader.restore(path, restore_args=restore_args)
    leaves = {jax.tree_util.keystr(place): x for place, x in jax.tree.leaves_with_path(found)}
    del leaves["['step']"]
    return leaves


def test_4x2_to_8x1_to_two_processes_to_one(tmp_path):
    assert run_stage(tmp_path, devices=8, fsdp=2).startswith("on 8 devices, ")
    assert run_stage(tmp_path, devices=8, fsdp=1).startswith("on 8 devices, ")
    said = run_stage(tmp_path, devices=1, fsdp=2, processes=2)
    assert said.startswith("on 2 devices, ") and "0 leaves" not in said
    assert run_stage(tmp_path, devices=1, fsdp=1) == "on 1 devices, 0 leaves cut"
    first = stored(tmp_path, 1)
    assert len(first) > 50 and any("opt_state" in place for place in first)
    for step in (2, 3, 4):
        later = stored(tmp_path, step)
        assert later.keys() == first.keys()
        for place, value in first.items():
            np.testing.assert_array_equal(later[place], value, err_msg=f"{step} {place}")
