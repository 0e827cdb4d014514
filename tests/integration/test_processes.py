"""Several real processes: they train as one does, stop together, and name one that died."""

import contextlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from job import Job

from avt_jax.training.checkpoint import load_run

RECIPE = ["train", "--config", "quickstart:smoke", "--config.data.path=generated:22:label=4"]
SETTINGS = [
    *RECIPE,
    "--config.train.log_every_steps=1",
    "--config.train.eval_every_steps=2",
    "--config.model.drop_path=0.2",
    # Not one that depends on how long the training is.
    "--config.optimizer.lr=1e-2",
    "--config.optimizer.min_lr=1e-2",
    # AdamW's first steps have the size of the rate however small the gradient.
    "--config.optimizer.name=sgd",
    "--config.optimizer.warmup_epochs=0",
    # Averaged and raw weights are judged, by all processes alike.
    "--config.optimizer.ema_decay=0.5",
    # Parameters are cut, too, however small.
    "--config.mesh.min_cut_mb=0",
]


def train(folder, count, steps, *words):
    job = Job(
        folder.with_name(f"{folder.name}-says"),
        count,
        *SETTINGS,
        "--workdir",
        folder,
        f"--config.train.steps={steps}",
        *words,
    )
    codes = job.wait()
    assert codes == [0] * count, [job.stderr(i) for i in range(count)]
    return job


# What no two trainings have in common.
TIMES = {"clips_per_sec", "wait_data_sec", "host_sec", "device_sec", "goodput"}


def logged(folder):
    entries = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {(one.pop("step"), one.pop("split")): one for one in entries}


def assert_same(found, expected):
    """Metrics of training to 1e-5; those of evaluations to the digit; each line once."""
    assert found.keys() == expected.keys()
    for (step, split), values in expected.items():
        ours = dict(found[step, split])
        if split == "val":
            assert ours == values
        for name in values.keys() - TIMES:
            np.testing.assert_allclose(
                ours[name], values[name], rtol=1e-5, err_msg=f"{name} {step}"
            )


def test_two_processes_train_as_one_and_either_goes_on(tmp_path):
    alone, two, changing = (tmp_path / name for name in ("alone", "two", "changing"))
    train(alone, 1, 6)
    job = train(two, 2, 6, "--config.mesh.fsdp=2")
    assert_same(logged(two), logged(alone))
    assert "raw/top1/label" in logged(two)[6, "val"]
    assert job.stderr(1) == "", "the first process speaks"
    # 22 clips do not divide by the processes' batches; evaluated to the last one.
    train(changing, 2, 2, "--config.mesh.fsdp=2")
    train(changing, 1, 6)
    assert_same(logged(changing), logged(alone))
    expected, found = load_run(alone, "last"), load_run(changing, "last")
    for name, value in expected.params.items():
        np.testing.assert_allclose(found.params[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_evaluation_is_divided(tmp_path):
    folder = tmp_path / "run"
    train(folder, 1, 2)
    found = {}
    for count in (1, 2):
        out = tmp_path / f"out{count}"
        words = ["evaluate", "--checkpoint", folder, "--split", "val", "--out", out]
        job = Job(tmp_path / f"says{count}", count, *words, "--clips", "3")
        assert job.wait() == [0] * count, job.stderr()
        results = json.loads((out / "results.json").read_text())
        del results["evaluated-on"]["seconds"], results["evaluated-on"]["date"]
        found[count] = results
    assert found[1] and found[1] == found[2]


@pytest.fixture
def endless(tmp_path):
    """Starts, or goes on with, a training that does not end by itself."""

    def start():
        endless = ["--workdir", tmp_path / "run", "--config.train.steps=1000000"]
        job = Job(tmp_path / "says", 2, *SETTINGS, *endless, "--config.train.eval_every_steps=50")
        job.wait_for("clips/s")
        return job

    return start


def test_one_is_stopped_or_dies(endless, tmp_path):
    job = endless()
    job.processes[1].terminate()
    assert job.wait(60) == [143, 143], job.stderr()
    assert "checkpoint saved; run again to continue" in job.stderr()
    steps = [int(path.name) for path in (tmp_path / "run/checkpoints").iterdir()]
    assert f"stopped at step {max(steps)}" in job.stderr()

    job = endless()
    job.processes[1].kill()
    job.processes[0].wait(60)
    assert job.processes[0].returncode == 75, job.stderr()
    assert "process 1 of 2 on " in job.stderr() and "it died or hangs (at last " in job.stderr()

    job = endless()
    job.processes[0].kill()
    job.processes[1].wait(60)
    assert job.processes[1].returncode == 75, job.stderr(1)
    assert "most likely since process 0 of the job has died" in job.stderr(1)


def descendants(pid):
    """Process numbers of a process's children and theirs, on Linux."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += [int(child), *descendants(child)]
    return found


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc")
def test_a_whole_tree_of_processes_is_signalled(tmp_path):
    words = ["--workdir", tmp_path / "run", "--config.train.steps=1000000"]
    job = Job(tmp_path / "says", 1, *SETTINGS, *words, "--config.data.num_workers=2")
    job.wait_for("step 5/")
    tree = descendants(job.processes[0].pid)
    assert len(tree) >= 2, "workers read the data"
    for pid in [*tree, job.processes[0].pid]:
        with contextlib.suppress(ProcessLookupError):  # one that evaluated has ended
            os.kill(pid, signal.SIGTERM)
    assert job.wait(60) == [143], job.stderr()
    assert "checkpoint saved" in job.stderr()


def test_a_mistake_of_one_ends_all(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "mine.txt").write_text("not a run")
    job = Job(tmp_path / "says", 2, *RECIPE, "--workdir", folder)
    assert job.wait() == [2, 2]
    assert f"--workdir {folder} exists and is not a run folder" in job.stderr(0)
    assert f"process 0 of 2: --workdir {folder} exists" in job.stderr(1)
