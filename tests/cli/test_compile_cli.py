"""`avt compile`: mistakes, the search for the largest batch, and what it prints.

What needs the compiler is in tests/profiling/test_ahead_of_time.py.
"""

import importlib.util

import jax
import pytest

from avt_jax.cli import compile as compile_cli
from avt_jax.cli.common import run
from avt_jax.experiment.cost.compile import CompileReport, Try, search
from avt_jax.profiling import ahead_of_time
from avt_jax.profiling.ahead_of_time import Memory
from avt_jax.profiling.chips import Topology
from avt_jax.profiling.collectives import Collective
from avt_jax.profiling.origins import Origin
from avt_jax.profiling.step_cost import Amount, StepCost


@pytest.fixture
def four_chips(monkeypatch):
    """Four of the CPU's devices in the place of the topology's."""
    monkeypatch.setattr(ahead_of_time, "devices", lambda topology: jax.devices()[:4])


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--topology", "v5e"], "'v5e' is no topology; give such as v5e:4x4"),
        (["--topology", "v9:2x2"], "chip 'v9' is not known"),
        (["--batch-per-chip", "0"], "--batch-per-chip 0"),
        (["--effort=2"], "--effort 2.0"),
        (["--config.model.dims=3"], "config.model.dims"),
        (["--config.train.batch_size=6"], "batch size 6 does not divide over 4 devices"),
        (["--config.mesh.fsdp=3"], "there are 4"),
        (["--classes", "label"], "--classes 'label'"),
    ],
)
def test_mistakes_end_with_2(arguments, message, capsys, four_chips):
    base = ["--topology", "v5e:2x2", "--config", "mbt_vggsound:smoke"]
    assert run(compile_cli.main, base + arguments) == 2
    assert message in capsys.readouterr().err


def test_without_the_compiler_it_says_what_to_install(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "libtpu" else find(name, *a)
    )
    arguments = ["--topology", "v5e:2x2", "--config", "mbt_vggsound:smoke"]
    assert run(compile_cli.main, arguments) == 2
    said = capsys.readouterr().err
    assert "pip install avt_jax[aot]" in said and "Traceback" not in said


@pytest.mark.parametrize("start", [1, 8, 100])
@pytest.mark.parametrize("most", [0, 1, 7, 8, 23])
def test_the_largest_batch(most, start):
    tried, said = [], []

    def attempt(per_chip):
        tried.append(per_chip)
        return None, Try(per_chip, per_chip <= most, None)

    tries = [attempt(start)[1]]
    assert search(attempt, tries, said.append) == most
    assert len(tried) == len(set(tried)) <= 10 and [one.per_chip for one in tries] == tried
    assert len(said) == len(tried) - 1
    assert all("trying" in line for line in said)


def report(**changes):
    origin = Origin("video encoder", "backward", "depthwise convolution")
    cost = StepCost(
        amounts={origin: Amount(count=3, cycles=3_000_000, seconds=0.002, bytes=1_640_000)},
        collectives=[Collective("all-reduce", 24_000_000, 4, 1, "")],
    )
    given = dict(
        topology=Topology.of("v5e:2x2"),
        batch_per_chip=8,
        classes={"label": 309},
        precision="bfloat16",
        effort=None,
        tries=(Try(8, True, 10 * 2**30),),
        largest_batch=12,
        memory=Memory(2**30, 2**30, 2**30, 9 * 2**30, 2**20, 10 * 2**30),
        seconds={"trace": 1.0, "lower": 2.0, "compile": 3.0},
        flops=700_000_000_000,
        repeated_flops=108_400_000_000,
        cost=cost,
    )
    return CompileReport(**{**given, **changes})


def test_times_by_hand():
    found = report()
    # Two axes of two chips, one link of 45 GB/s along each.
    talk = 2 * 24e6 * 3 / 4 / 90e9
    assert found.step_sec(overlap=False) == pytest.approx(0.002 + talk)
    assert found.step_sec(overlap=True) == pytest.approx(0.002)
    assert found.efficiency(overlap=False) == pytest.approx(0.002 / (0.002 + talk))
    assert found.efficiency(overlap=True) == 1
    assert found.mfu(overlap=True) == pytest.approx(591.6e9 / (0.002 * 4 * 197e12))


def printed(monkeypatch, capsys, found, *arguments):
    monkeypatch.setattr("avt_jax.experiment.cost.compile.compile_step", lambda *a, **k: found)
    monkeypatch.setattr("avt_jax.experiment.cost.compile_step", lambda *a, **k: found)
    code = run(compile_cli.main, ["--topology", "v5e:2x2", "--config", "vggsound", *arguments])
    return code, capsys.readouterr().out


def test_the_page(monkeypatch, capsys):
    code, page = printed(monkeypatch, capsys, report())
    assert code == 0
    for text in (
        "4 chips, 8 clips a chip, 32 a step",
        "5,888 MiB to spare",  # 15.75 GiB less 10
        "largest batch that fits: 12",
        "video encoder",
        "depthwise convolution",
        "2.000",  # both: by bytes, and estimated
        "all-reduce",
        "0.400",  # of the all-reduce, alone
        "2.400",  # a step without overlap
        "83.3%",
        "37.54%",
        "0.7000 TFLOP",
        "1.50 GHz",
    ):
        assert text in page, text


def test_what_does_not_fit(monkeypatch, capsys):
    tries = (Try(8, False, 18 * 2**30), Try(4, True, 2**30))
    found = report(tries=tries, largest_batch=4, memory=None, cost=None)
    code, page = printed(monkeypatch, capsys, found)
    assert code == 1
    assert "needs 18,432 MiB of 16,128 MiB" in page and "fits: 4 clips a chip" in page
    code, page = printed(monkeypatch, capsys, found, "--json")
    assert code == 1 and '"fits": false' in page and '"memory"' not in page
