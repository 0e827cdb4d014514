"""launch/tpu_worker.sh, as launch/tpu_pod.sh calls it over ssh."""

import json
import os
import shlex
import shutil
import subprocess
import time

import pytest

WORKDIR = ["--workdir", "runs/a"]

# Notes its arguments; ends when it is told to, and at SIGTERM as avt does.
AVT = """#!{python} -IS
import json, os, signal, sys, time
home = os.environ["HOME"]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
json.dump(sys.argv[1:], open(home + "/told.new", "w"))
os.rename(home + "/told.new", home + "/told")
print("step 1", flush=True)
while not os.path.exists(home + "/end"):
    time.sleep(0.02)
sys.exit(int(open(home + "/end").read()))
"""


@pytest.fixture
def worker(machine):
    """A home folder with avt/launch and an environment, as setup leaves it."""
    shutil.copytree(machine.checkout / "launch", machine.home / "avt" / "launch")
    machine.program("avt", AVT)
    binaries = machine.home / "avt" / ".venv" / "bin"
    binaries.mkdir(parents=True)
    shutil.move(machine.bin / "avt", binaries / "avt")
    machine.ssh = lambda line: subprocess.run(
        # gcloud cuts the command at spaces, and ssh joins the words with one.
        ["bash", "-c", " ".join(line.split(" "))],
        cwd=machine.home, env=machine.env, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    yield machine
    (machine.home / "end").write_text("0")
    until(lambda: "running" not in status(machine))


def status(worker):
    return worker.ssh("bash avt/launch/tpu_worker.sh status").stdout.split(" ", 2)[2].strip()


def until(true):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_line(machine, *train):
    """The line that tpu_pod.sh sends to the workers to start a training."""
    machine.program("gcloud")
    ran = machine.run("tpu_pod.sh", "run", "p1", "--zone", "z", "--shared", "--", *WORKDIR, *train)
    assert ran.returncode == 0, ran.stderr
    call = next(call for call in machine.calls() if "ssh" in call)
    return next(word for word in call if word.startswith("--command="))[len("--command=") :]


def test_arguments_arrive_as_they_were_given(worker, nasty):
    assert worker.ssh(start_line(worker, *nasty)).returncode == 0
    until((worker.home / "told").exists)
    told = json.loads((worker.home / "told").read_text())
    assert told == ["train", "--distributed", "on", *WORKDIR, *nasty]


@pytest.mark.parametrize("code", [0, 3])
def test_a_training_from_start_to_end(worker, code):
    assert status(worker) == "none"
    # The call ends while the training goes on.
    assert worker.ssh(start_line(worker, "--x")).returncode == 0
    until((worker.home / "told").exists)
    assert status(worker) == "running"
    assert "step 1" in (worker.home / "avt_run" / "train.log").read_text()
    (worker.home / "end").write_text(str(code))
    until(lambda: status(worker) != "running")
    assert status(worker) == f"exited {code}"


def test_stop_lets_it_save(worker):
    worker.ssh(start_line(worker, "--x"))
    until((worker.home / "told").exists)
    assert worker.ssh("bash avt/launch/tpu_worker.sh stop").returncode == 0
    until(lambda: status(worker) != "running")
    assert status(worker) == "exited 143"


def test_one_training_at_a_time(worker):
    worker.ssh(start_line(worker, "--x"))
    until((worker.home / "told").exists)
    again = worker.ssh(start_line(worker, "--x"))
    assert (again.returncode, again.stdout.strip()) == (0, "The training runs already.")
    other = worker.ssh(start_line(worker, "--y"))
    assert other.returncode == 2
    assert "another training runs on" in other.stderr


def test_what_was_killed_does_not_run(worker):
    worker.ssh(start_line(worker, "--x"))
    until((worker.home / "told").exists)
    pid = (worker.home / "avt_run" / "pid").read_text().strip()
    worker.ssh(f"kill -KILL -- -{shlex.quote(pid)}")
    until(lambda: status(worker) != "running")
    assert status(worker) == "exited 137"


def test_setup_installs_with_the_extra(worker):
    python = worker.home / "avt" / ".venv" / "bin" / "python"
    worker.program("python")
    shutil.copy(worker.bin / "python", python)
    (python.parent / "rules.json").write_text("[]")
    worker.program("avt")
    shutil.copy(worker.bin / "avt", python.parent / "avt")
    assert worker.ssh("bash avt/launch/tpu_worker.sh setup").returncode == 0
    calls = (python.parent / "calls.jsonl").read_text()
    (argv,) = [
        call["argv"] for call in map(json.loads, calls.splitlines()) if "pip" in call["argv"]
    ]
    # Shards at gs:// need a package of their own.
    assert argv[-2:] == [f"{worker.home}/avt[tpu]", "gcsfs"]
    # Ends the fixture's wait for a training that is not there.
    shutil.rmtree(worker.home / "avt_run", ignore_errors=True)


def test_setup_brings_a_python_where_there_is_none(worker):
    shutil.rmtree(worker.home / "avt" / ".venv")
    worker.program("python3")
    worker.rule("python3", "import sys, venv", ("", 1))
    worker.rule("python3", "uv venv", ("no network\n", 4))
    ran = worker.ssh("bash avt/launch/tpu_worker.sh setup")
    assert ran.returncode == 4
    calls = [" ".join(call) for call in worker.calls("python3")]
    assert calls[1:] == [
        "python3 -m pip install --user --quiet uv",
        f"python3 -m uv venv --seed --python 3.12 {worker.home}/avt/.venv",
    ]


@pytest.fixture
def nfs(worker):
    """A worker whose programs note what is mounted; its shared folder can be written to."""
    worker.shared = worker.home / "shared"
    worker.shared.mkdir()
    common = worker.home / "avt" / "launch" / "common.sh"
    text = common.read_text()
    assert text.count("=/mnt/avt-shared\n") == 1
    common.write_text(text.replace("=/mnt/avt-shared\n", f"={worker.shared}\n"))
    for tool in ("sudo", "findmnt"):
        worker.program(tool)
    return worker


def mount(worker, share="10.0.0.2:/runs"):
    return worker.ssh(f"bash avt/launch/tpu_worker.sh mount {shlex.quote(share)}")


def test_a_share_is_mounted_once(nfs):
    nfs.rule("findmnt", str(nfs.shared), ("", 1), ("10.0.0.2:/runs\n", 0))
    assert mount(nfs).returncode == 0
    told = [
        ["apt-get", "install", "-y", "-q", "-o", "DPkg::Lock::Timeout=600", "nfs-common"],
        ["mkdir", "-p", str(nfs.shared)],
        ["mount", "-t", "nfs", "-o", "hard,local_lock=flock", "10.0.0.2:/runs", str(nfs.shared)],
    ]
    assert [call[1:] for call in nfs.calls("sudo")] == told
    assert mount(nfs).returncode == 0
    assert nfs.calls("sudo") == []


def test_nothing_is_installed_where_mount_knows_nfs(nfs):
    nfs.program("mount.nfs")
    assert mount(nfs).returncode == 0
    assert [call[1] for call in nfs.calls("sudo")] == ["mkdir", "mount"]


def test_a_mount_that_fails_is_told(nfs):
    nfs.rule("sudo", "mount -t", ("access denied by server\n", 32))
    ran = mount(nfs)
    assert ran.returncode == 32
    assert "access denied by server" in ran.stderr


def test_another_share_is_there(nfs):
    nfs.rule("findmnt", "", ("10.0.0.3:/other\n", 0))
    ran = mount(nfs)
    assert ran.returncode == 2
    assert "has 10.0.0.3:/other mounted, not 10.0.0.2:/runs" in ran.stderr
    assert nfs.calls("sudo") == []


def test_worker_takes_no_option_for_a_share_and_no_address_for_a_folder(nfs):
    ran = mount(nfs, "-o:/a")
    assert (ran.returncode, nfs.calls()) == (2, [])
    assert "it must be HOST:/SHARE" in ran.stderr
    ran = nfs.ssh("bash avt/launch/tpu_worker.sh start --workdir gs://my-b/a")
    assert ran.returncode == 2
    assert "--workdir is 'gs://my-b/a', which is no file system" in ran.stderr
    assert status(nfs) == "none"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("used", [False, True])
def test_a_new_share_is_opened_and_a_used_one_is_not(nfs, used):
    nfs.rule("findmnt", "", ("10.0.0.2:/runs\n", 0))
    (nfs.shared / ("mine" if used else "lost+found")).mkdir()
    nfs.shared.chmod(0o555)
    ran = mount(nfs)
    nfs.shared.chmod(0o755)
    assert ran.returncode == (2 if used else 0)
    assert ("may not write to 10.0.0.2:/runs" in ran.stderr) == used
    opened = [["sudo", "chmod", "a+rwx", str(nfs.shared)]]
    assert nfs.calls("sudo") == ([] if used else opened)
