"""launch/tpu_worker.sh mount-bucket, as launch/tpu_pod.sh calls it over ssh."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

APT = "https://packages.cloud.google.com/apt"
KEY = "/usr/share/keyrings/cloud.google.asc"


@pytest.fixture
def worker(machine):
    """A home folder with avt/launch; buckets are mounted in a folder of the test."""
    shutil.copytree(machine.checkout / "launch", machine.home / "avt" / "launch")
    machine.buckets = machine.home / "buckets"
    (machine.buckets / "my-b").mkdir(parents=True)
    common = machine.home / "avt" / "launch" / "common.sh"
    text = common.read_text()
    assert text.count("=/mnt/avt-gcs\n") == 1
    common.write_text(text.replace("=/mnt/avt-gcs\n", f"={machine.buckets}\n"))
    for tool in ("sudo", "findmnt", "lsb_release"):
        machine.program(tool)
    machine.rule("lsb_release", "-cs", ("jammy\n", 0))
    return machine


def options(worker):
    """What gcsfuse is given on every machine."""
    text = (worker.checkout / "launch" / "common.sh").read_text()
    return re.search(r"^GCSFUSE_OPTIONS=\(([^)]*)\)", text, re.M)[1].split()


def mount(worker, *words):
    line = " ".join(map(shlex.quote, words or ["my-b"]))
    return subprocess.run(
        ["bash", "-c", f"bash avt/launch/tpu_worker.sh mount-bucket {line}"],
        cwd=worker.home, env=worker.env, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def test_what_hosts_need_of_each_other(worker):
    """Nothing is kept of what another host may have changed, and folders can be renamed."""
    given = options(worker)
    assert {"--metadata-cache-ttl-secs=0", "--metadata-cache-negative-ttl-secs=0"} <= set(given)
    assert {"--implicit-dirs", "--rename-dir-limit=200000"} <= set(given)
    # Else what is synced is not in the bucket before the file is closed.
    assert "--enable-streaming-writes=false" in given
    docs = (worker.root / "docs" / "launch.md").read_text().replace("\\\n", "")
    assert f"gcsfuse {' '.join(given)} BUCKET ~/bucket" in " ".join(docs.split())


def test_a_bucket_is_mounted_once(worker):
    worker.program("gcsfuse")
    folder = str(worker.buckets / "my-b")
    worker.rule("findmnt", folder, ("", 1), ("my-b\n", 0))
    assert mount(worker, "my-b", "--temp-dir=/mnt/a b").returncode == 0
    calls = [call for call in worker.calls() if call[0] != "findmnt"]
    assert calls == [
        ["sudo", "mkdir", "-p", folder],
        ["sudo", "chown", f"{os.getuid()}:{os.getgid()}", folder],
        ["gcsfuse", *options(worker), "--temp-dir=/mnt/a b", "my-b", folder],
    ]
    assert mount(worker).returncode == 0
    assert {call[0] for call in worker.calls()} == {"findmnt"}


def test_gcsfuse_is_installed_where_it_is_missing(worker):
    """From the repository that its documentation names, whose key is read from there alone."""
    ran = mount(worker)
    assert ran.returncode == 127, "which the programs of this test have not brought"
    calls = [call[1:] for call in worker.calls("sudo")]
    assert calls[:4] == [
        ["curl", "-fsS", "--output", KEY, f"{APT}/doc/apt-key.gpg"],
        ["tee", "/etc/apt/sources.list.d/gcsfuse.list"],
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-y", "-q", "-o", "DPkg::Lock::Timeout=600", "gcsfuse"],
    ]


def test_the_line_for_apt(worker):
    told = worker.home / "told"
    worker.program("sudo", f'#!/bin/sh\n[ "$1" != tee ] || cat >"{told}"\n')
    mount(worker)
    assert told.read_text() == f"deb [signed-by={KEY}] {APT} gcsfuse-jammy main\n"


@pytest.mark.parametrize("step", ["curl", "apt-get update", "apt-get install", "chown"])
def test_a_step_that_fails_is_told(worker, step):
    worker.rule("sudo", step, ("no network\n", 6))
    ran = mount(worker)
    assert ran.returncode == 6
    assert "no network" in ran.stderr
    assert worker.calls()[-1][1:3] == step.split()[:2] or step in " ".join(worker.calls() or [step])


def test_a_mount_that_fails_is_told(worker):
    worker.program("gcsfuse")
    worker.rule("gcsfuse", "", ("bucket does not exist\n", 1))
    ran = mount(worker)
    assert ran.returncode == 1
    assert "bucket does not exist" in ran.stderr


def test_something_else_is_mounted_there(worker):
    worker.program("gcsfuse")
    worker.rule("findmnt", "", ("other\n", 0))
    ran = mount(worker)
    assert ran.returncode == 2
    assert "has other mounted, not the bucket my-b; unmount it first: sudo umount" in ran.stderr
    assert worker.calls("sudo") == []


def test_a_mount_whose_process_has_died_is_made_anew(worker):
    worker.program("gcsfuse")
    folder = str(worker.buckets / "my-b")
    worker.rule("findmnt", "", ("my-b\n", 0))
    dead = worker.home / "dead.sh"
    dead.write_text(
        f'cd() {{ [ "$1" != {folder} ] && builtin cd "$@" && return\n'
        'echo "cd: $1: Transport endpoint is not connected" >&2; return 1; }\n'
    )
    worker.env["BASH_ENV"] = str(dead)
    assert mount(worker).returncode == 0
    calls = [call for call in worker.calls() if call[0] != "findmnt"]
    assert calls[0] == ["sudo", "umount", "-l", folder]
    assert calls[-1] == ["gcsfuse", *options(worker), "my-b", folder]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_mount_of_another_user(worker):
    worker.rule("findmnt", "", ("my-b\n", 0))
    (worker.buckets / "my-b").chmod(0o555)
    ran = mount(worker)
    assert ran.returncode == 2
    assert "which another user has mounted; unmount it first: sudo umount" in ran.stderr


@pytest.mark.parametrize(
    "name", ["", "-o", "My-b", "b/a", "a..b", "a b", "b;id", "$(id)", "b'", "../b"]
)
def test_what_is_no_bucket(worker, name):
    ran = mount(worker, name)
    assert ran.returncode == 2
    assert f"what is to be mounted is '{name}'; it must be the name of a bucket" in ran.stderr
    assert worker.calls() == []
