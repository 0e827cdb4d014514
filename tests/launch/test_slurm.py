"""launch/slurm.sbatch, run as SLURM runs it: a copy of the file, elsewhere."""

import re
import shutil

import pytest

JOB = {"SLURM_JOB_ID": "77", "SLURM_CPUS_PER_TASK": "6"}


@pytest.fixture
def cluster(machine):
    for tool in ("srun", "scontrol", "avt"):
        machine.program(tool)
    shutil.move(machine.checkout / "launch" / "slurm.sbatch", machine.checkout / "spool")
    shutil.rmtree(machine.checkout / "launch")
    (machine.checkout / "launch").mkdir()
    shutil.move(machine.checkout / "spool", machine.checkout / "launch" / "slurm_script")
    return machine


def job(cluster, *train, **env):
    return cluster.run("slurm_script", *train, **(JOB | env))


def test_dry_run_is_what_runs(cluster, nasty):
    nasty = ["--config.data.path=gs://b/shards", *nasty]
    shown = job(cluster, "--dry-run", *nasty)
    assert shown.returncode == 0, shown.stderr
    assert cluster.calls() == []
    ran = job(cluster, *nasty)
    assert ran.returncode == 0, ran.stderr
    calls = cluster.calls()
    assert [call[0] for call in calls] == ["srun"]
    assert calls[0][calls[0].index("avt") :] == ["avt", "train", *nasty]
    assert "--cpus-per-task=6" in calls[0]
    # All GPUs are seen by each task, and no task is killed while it saves.
    assert {"--gpu-bind=none", "--kill-on-bad-exit=0"} <= set(calls[0])
    cluster.shell(shown.stdout)
    assert cluster.calls() == calls


def test_directives(machine):
    """SLURM reads them up to the first command only."""
    text = (machine.checkout / "launch" / "slurm.sbatch").read_text()
    head = re.split(r"^[^#\n]", text, maxsplit=1, flags=re.M)[0]
    options = dict(
        re.match(r"#SBATCH --([a-z-]+)=?(.*)", line).groups()
        for line in head.splitlines()
        if line.startswith("#SBATCH")
    )
    assert text.count("\n#SBATCH") == len(options)
    assert options["signal"] == "TERM@120"
    assert "requeue" in options
    assert options["open-mode"] == "append"
    assert options["ntasks-per-node"] == options["gpus-per-node"]


@pytest.mark.parametrize("code", [143, 130])
def test_a_job_that_was_stopped_is_queued_again(cluster, code):
    cluster.rule("srun", "", ("", code))
    ran = job(cluster, "--x", SLURM_RESTART_COUNT="3")
    assert ran.returncode == code
    assert cluster.calls("scontrol") == [["scontrol", "requeue", "77"]]
    assert "requeue 4 of 50" in ran.stdout


@pytest.mark.parametrize("code", [0, 1, 2, 137])
def test_any_other_is_not(cluster, code):
    cluster.rule("srun", "", ("", code))
    ran = job(cluster, "--x")
    assert ran.returncode == code
    assert cluster.calls("scontrol") == []
    assert ("exit code" in ran.stderr) == (code != 0)


def test_requeues_have_a_limit(cluster):
    cluster.rule("srun", "", ("", 143))
    ran = job(cluster, "--x", SLURM_RESTART_COUNT="2", AVT_MAX_REQUEUES="2")
    assert ran.returncode == 143
    assert cluster.calls("scontrol") == []
    assert "stopped after 2 requeues, the limit (AVT_MAX_REQUEUES)" in ran.stderr


def test_a_requeue_that_fails_is_told(cluster):
    cluster.rule("srun", "", ("", 143))
    cluster.rule("scontrol", "", ("denied\n", 1))
    ran = job(cluster, "--x")
    assert ran.returncode == 143
    assert "'scontrol requeue 77' failed; submit the same command" in ran.stderr


def test_the_environment_of_the_checkout(cluster):
    binaries = cluster.checkout / ".venv" / "bin"
    binaries.mkdir(parents=True)
    shutil.move(cluster.bin / "avt", binaries / "avt")
    job(cluster, "--x", SLURM_SUBMIT_DIR=str(cluster.checkout))
    (call,) = cluster.calls("srun")
    assert str(binaries / "avt") in call


@pytest.mark.parametrize("given", [["--workdir", "s3://b/a"], ["--workdir=s3://b/a"]])
def test_the_run_folder_is_on_a_file_system(cluster, given):
    ran = job(cluster, "--config.data.path=gs://b/shards", *given)
    assert ran.returncode == 2
    assert "--workdir is 's3://b/a', which is no file system" in ran.stderr
    assert cluster.calls() == []


def test_mistakes(machine, cluster):
    assert "no arguments for 'avt train'" in job(cluster).stderr
    outside = cluster.run("slurm_script", "--x", "a b")
    assert outside.returncode == 2
    assert "'sbatch' was not found" in outside.stderr
    cluster.program("sbatch")
    outside = cluster.run("slurm_script", "--x", "a b")
    assert outside.returncode == 2
    assert r"submit it: sbatch launch/slurm.sbatch --x a\ b" in outside.stderr
    (cluster.bin / "avt").unlink()
    ran = job(cluster, "--x")
    assert ran.returncode == 2
    assert "'avt' was not found" in ran.stderr
    (cluster.bin / "srun").unlink()
    assert "'srun' was not found" in job(cluster, "--x").stderr


def test_a_bucket_has_to_be_mounted_and_how(cluster):
    """With the options of the other scripts, of which SLURM's copy of the file knows nothing."""
    ran = job(cluster, "--config", "c", "--workdir=gs://my-b/runs/a")
    assert ran.returncode == 2 and cluster.calls() == [] and ran.stderr.count("\n") == 1
    common = (cluster.root / "launch" / "common.sh").read_text()
    options = re.search(r"^GCSFUSE_OPTIONS=\(([^)]*)\)", common, re.M)[1].split()
    folder = "/tmp/avt-gcs/my-b"
    command = f"mkdir -p {folder} && gcsfuse {' '.join(options)} my-b {folder}"
    assert f"mount the bucket on every node, {command}, and give" in ran.stderr
    assert ran.stderr.endswith(f"--workdir {folder}/runs/a.\n")
    for url in ("gs://my-b;id/a", "gs://$(id)/a", "gs://my-b"):
        ran = job(cluster, "--workdir", url)
        assert ran.returncode == 2 and "gcsfuse" not in ran.stderr
