"""Compiling for TPUs that are not here.

What needs the compiler (libtpu, extra `aot`) runs in processes of its own, by launch/test_aot.sh.
"""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from avt_jax.profiling.ahead_of_time import DoesNotFit, ticking
from avt_jax.profiling.chips import CHIPS, GIB

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed (extra `aot`); runs in launch/test_aot.sh",
)


@pytest.mark.parametrize(
    "message,needed,available",
    [
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 18.10G of 15.75G hbm. Exceeded hbm capacity by 2.35G.",
            18.10 * GIB,
            15.75 * GIB,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (400.00M) exceeds available HBM (15.75G).",
            400 * 2**20,
            15.75 * GIB,
        ),
        ("RESOURCE_EXHAUSTED: out of something else", None, None),
    ],
)
def test_the_two_figures_of_a_refusal(message, needed, available):
    error = DoesNotFit(message)
    found = error.needed_bytes, error.available_bytes
    assert found == (needed and round(needed), available and round(available))


def test_long_work_says_that_it_goes_on():
    said = []
    with ticking(said.append, "compiling, slowly", every_sec=0.01):
        while len(said) < 3:
            pass
    assert said[0] == "compiling, slowly" and said[1].startswith("  still compiling after 0 s")


def run(code, *arguments):
    """What a Python program in its own process prints, as JSON."""
    done = subprocess.run(
        [sys.executable, *(code if isinstance(code, list) else ["-c", code]), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


PRODUCT = """
import json, sys
import jax, jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from avt_jax.profiling import ahead_of_time, flops, hlo
from avt_jax.profiling.chips import Topology
from avt_jax.profiling.step_cost import estimate

topology = Topology.of(sys.argv[1])
devices = ahead_of_time.devices(topology)
mesh = Mesh(devices[:1], ("x",))
place = NamedSharding(mesh, PartitionSpec())

def compile(function, *shape):
    given = jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place)
    return ahead_of_time.compile_for_tpu(
        jax.jit(function), [given], name=topology.name, say=lambda line: None
    )

@jax.jit
def thrice(x):
    return jax.lax.fori_loop(0, 3, lambda i, c: c @ x, x)

made = compile(thrice, 8192, 8192)
cost = estimate(hlo.parse(made.text), topology.chip)
found = {
    "devices": len(devices),
    "seconds": cost.compute_sec,
    "flops": flops.of_step(made.jaxpr.jaxpr)[0],
    "peak": made.memory.peak,
    "unknown_loops": cost.unknown_loops,
}
try:
    compile(jnp.sin, 2**20, 2**17)
except ahead_of_time.DoesNotFit as error:
    found["needed"], found["available"] = error.needed_bytes, error.available_bytes
print(json.dumps(found))
"""


@needs_libtpu
@pytest.mark.parametrize(
    "topology,devices",
    [("v4:2x2x1", 4), ("v5e:1x1", 1), ("v5e:4x4", 16), ("v5p:2x2x1", 4), ("v6e:2x2", 4)],
)
def test_products_take_what_the_chip_can_do(topology, devices):
    chip, found = CHIPS[topology.split(":")[0]], run(PRODUCT, topology)
    assert found["devices"] == devices
    assert found["flops"] == 3 * 2 * 8192**3
    assert not found["unknown_loops"]
    # The compiler takes products at 70 (v6e) to 93 % of the peak, and the loop copies its array.
    assert 1.0 < found["seconds"] / (found["flops"] / chip.peak_flops) < 2.0
    assert 2 * 128 * 2**20 <= found["peak"] < 6 * 128 * 2**20
    assert found["available"] == pytest.approx(chip.hbm_bytes, abs=0.01 * GIB)
    assert found["needed"] >= 256 * GIB


@needs_libtpu
def test_the_step_of_a_recipe():
    command = ["-m", "avt_jax", "compile", "--topology", "v5e:2x2", "--json", "--effort=-1"]
    found = run(command, "--config", "quickstart:smoke", "--batch-per-chip", "2")
    assert found["chips"] == 4 and found["fits"] and found["tries"][0]["fits"]
    memory = found["memory"]
    assert 0 < memory["arguments"] < memory["peak"] < found["hbm_bytes"]
    assert memory["temporaries"] > 0
    assert found["flops"] > 1e8 and found["repeated_flops"] == 0
    # The weights' gradients are added up over the chips.
    assert found["collectives"]["all-reduce"]["bytes"] > 500_000
    assert not found["unknown_loops"]
    amounts = [one for one in found["amounts"] if one["cycles"]]
    assert {"forward", "backward", "update"} <= {one["stage"] for one in amounts}
    parts = {one["part"] for one in amounts}
    assert parts == {"video encoder", "audio encoder", "fusion", "heads", "other"}
    kinds = {one["kind"] for one in amounts}
    assert {"depthwise convolution", "attention", "norm", "dense product", "optimiser"} <= kinds
    assert found["step_sec"]["with_overlap"] <= found["step_sec"]["without_overlap"]
    assert 0 < found["mfu"]["without_overlap"] < 1
