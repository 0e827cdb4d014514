"""The share of the devices' peak that a training reaches, and the memory that it takes."""

from types import SimpleNamespace

import jax
import pytest
from toy_run import counting_step, every, logged, run

import avt_jax
from avt_jax.experiment import run_training
from avt_jax.profiling import flops
from avt_jax.profiling.chips import CHIPS
from avt_jax.profiling.peaks import peak_flops
from avt_jax.training.observing import clock, watch
from avt_jax.training.observing.watch import Watch


def test_flops_of_a_step_over_what_the_devices_could_do(tmp_path, monkeypatch):
    now = SimpleNamespace(sec=0.0)
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: now.sec))
    state, step = counting_step()
    asked = []

    def timed(*arguments):
        now.sec += 2.0
        return step(*arguments)

    def count(state, batch, key):
        asked.append(int(state.step))
        return 300

    seen = Watch(peak_flops=1000.0, count_flops=count)
    run(tmp_path, state, timed, schedule=every(6), watch=seen)
    assert [entry["mfu"] for entry in logged(tmp_path, "train")] == [300 / (2.0 * 1000.0)] * 3
    assert asked == [1], "counted once, after the first step"


def test_without_a_known_peak_nothing_is_counted(tmp_path):
    seen = Watch(count_flops=lambda *_: pytest.fail("counted"))
    run(tmp_path, *counting_step(), schedule=every(4), watch=seen)
    assert not any("mfu" in entry for entry in logged(tmp_path, "train"))


def test_the_step_that_ran_is_counted(tmp_path, monkeypatch):
    """A whole training, on a device whose peak is told to be known."""
    monkeypatch.setattr(run_training, "peak_flops", lambda kind, precision: 1e9)
    found = []
    of_step = flops.of_step

    def noted(jaxpr):
        found.append(of_step(jaxpr))
        return found[-1]

    monkeypatch.setattr(flops, "of_step", noted)
    config = avt_jax.load_config("quickstart:smoke", {"train.steps": 3, "train.log_every_steps": 1})
    result = avt_jax.train(config, tmp_path / "run")
    ((total, repeated),) = found
    assert total > repeated >= 0
    entry = logged(tmp_path / "run", "train")[-1]
    assert "memory_peak_gib" not in entry, "a CPU does not count it"
    step_sec = entry["wait_data_sec"] + entry["host_sec"] + entry["device_sec"]
    peak = 1e9 * jax.device_count()
    assert result.metrics["train/mfu"] == pytest.approx((total - repeated) / (step_sec * peak))


def test_memory_is_the_most_of_any_device(tmp_path, monkeypatch):
    devices = [
        SimpleNamespace(memory_stats=lambda size=size: size)
        for size in ({"peak_bytes_in_use": 2**30}, {"peak_bytes_in_use": 3 * 2**30}, None)
    ]
    monkeypatch.setattr(watch.jax, "local_devices", lambda: devices)
    run(tmp_path, *counting_step(), schedule=every(2))
    assert logged(tmp_path, "train")[-1]["memory_peak_gib"] == 3.0


@pytest.mark.parametrize(
    ("kind", "chip"),
    [("TPU v4", "v4"), ("TPU v5 lite", "v5e"), ("TPU v5p", "v5p"), ("TPU v6 lite", "v6e")],
)
def test_a_tpu_multiplies_in_bfloat16_whatever_the_precision(kind, chip):
    for precision in ("bfloat16", "float32"):
        assert peak_flops(kind, precision) == CHIPS[chip].peak_flops


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("NVIDIA A100-SXM4-80GB", True),
        ("NVIDIA H100 80GB HBM3", True),
        ("NVIDIA H100 PCIe", True),
        ("NVIDIA H200", True),
        ("NVIDIA L4", True),
        ("NVIDIA L40S", False),
        ("NVIDIA H200 NVL", False),
        ("TPU v9", False),
        ("cpu", False),
    ],
)
def test_gpus_are_known_by_their_whole_name(kind, known):
    bfloat16, float32 = (peak_flops(kind, one) for one in ("bfloat16", "float32"))
    assert (bfloat16 is not None) == (float32 is not None) == known
    if known:
        assert float32 <= 0.51 * bfloat16, "TF32 has half the rate"
