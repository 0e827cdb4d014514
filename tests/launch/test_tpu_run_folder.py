"""launch/tpu_pod.sh: where the run folder of a training is, as the workers are told."""

import shlex

import pytest

SHARED = "/mnt/avt-shared"
NFS = ["--nfs", "10.0.0.2:/runs"]


@pytest.fixture
def cloud(machine):
    """A machine with gcloud."""
    machine.program("gcloud")
    return machine


def start(cloud, *options, train):
    return cloud.run("tpu_pod.sh", "run", "p1", "--zone", "z", *options, "--", *train)


@pytest.mark.parametrize("given", [["--workdir", "a b"], ["--workdir=a b"]])
def test_a_share_is_mounted_before_the_training_starts(cloud, given):
    assert start(cloud, *NFS, train=["--config", "c", *given, "--x"]).returncode == 0
    line = cloud.calls()[0][-2].removeprefix("--command=")
    mount, training = line.split(" && ")
    assert mount == "bash avt/launch/tpu_worker.sh mount 10.0.0.2:/runs"
    words = shlex.split(training.partition("--config c ")[2])
    assert " ".join(words).replace("=", " ") == f"--workdir {SHARED}/a b --x"


def test_a_file_system_that_is_mounted_is_left_alone(cloud):
    train = ["--workdir", "/data/a"]
    assert start(cloud, "--shared", train=train).returncode == 0
    line = cloud.calls()[0][-2]
    assert "mount" not in line
    assert line.endswith("start --distributed on --workdir /data/a")


@pytest.mark.parametrize(
    "folder", ["/home/a", "../a", "a/../..", "~/a", f"{SHARED}/", SHARED + "x/a"]
)
def test_a_run_folder_beside_the_share(cloud, folder):
    ran = start(cloud, *NFS, train=["--workdir", folder])
    assert ran.returncode == 2
    assert f"with --nfs it must be relative to the share, or a path under {SHARED}" in ran.stderr
    assert cloud.calls() == []


@pytest.mark.parametrize(
    "share",
    ["-o:/a", "h", "h:a", "h:/", "h:/a b", "h:/a,exec", "h:/../a", "h:/a\n", "$(id):/a", " "],
)
def test_what_is_no_share(cloud, share):
    ran = start(cloud, "--nfs", share, train=["--workdir", "a"])
    assert ran.returncode == 2
    assert "it must be HOST:/SHARE" in ran.stderr
    assert cloud.calls() == []
