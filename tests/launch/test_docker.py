"""launch/docker.sh and the Dockerfile."""

import os
import re

import pytest


def test_dry_run_is_what_runs(machine, nasty):
    for arguments in (
        ["build", "--device", "gpu", "--image", "r.example/p/avt:1"],
        ["run", "--device", "gpu", "--mount", "/data/a b", "--", "train", *nasty],
    ):
        separator = arguments.index("--") if "--" in arguments else len(arguments)
        shown = machine.run(
            "docker.sh", *arguments[:separator], "--dry-run", *arguments[separator:]
        )
        assert shown.returncode == 0, shown.stderr
        assert machine.calls() == []
        machine.program("docker")
        assert machine.run("docker.sh", *arguments).returncode == 0
        calls = machine.calls()
        assert len(calls) == 1
        machine.shell(shown.stdout)
        assert machine.calls() == calls
        (machine.bin / "docker").unlink()


def test_build(machine):
    machine.program("docker")
    machine.run("docker.sh", "build", "--device", "tpu")
    (call,) = machine.calls()
    assert call == [
        "docker", "build", f"--file={machine.checkout}/launch/Dockerfile", "--build-arg=DEVICE=tpu",
        "--tag=avt:tpu", str(machine.checkout),
    ]  # fmt: skip
    assert machine.noted[0]["env"]["DOCKER_BUILDKIT"] == "1"


def test_run(machine, nasty):
    machine.program("docker")
    machine.rule("docker", "run", ("", 143))
    ran = machine.run("docker.sh", "run", "--mount", "/data", "--", "train", *nasty)
    assert ran.returncode == 143
    (call,) = machine.calls()
    assert call[call.index("avt:cpu") :] == ["avt:cpu", "train", *nasty]
    assert "--mount=type=bind,source=/data,target=/data" in call
    assert f"--user={os.getuid()}:{os.getgid()}" in call
    assert "--gpus=all" not in call


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "unknown command ''"),
        (["build", "--device", "npu"], "--device is 'npu'"),
        (["build", "--image", "--x"], "--image is '--x'"),
        (["run", "--mount", "a"], "--mount is 'a'"),
        (["build"], "'docker' was not found; install it"),
    ],
)
def test_mistakes(machine, arguments, said):
    ran = machine.run("docker.sh", *arguments)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_bucket_has_to_be_mounted(machine):
    machine.program("docker")
    ran = machine.run("docker.sh", "run", "--", "train", "--workdir=gs://my-b/runs/a")
    assert ran.returncode == 2 and machine.calls() == []
    folder = f"{machine.home}/avt-gcs/my-b"
    assert re.search(f"gcsfuse --.* -o allow_other my-b {folder}, and give", ran.stderr)
    assert f"give --mount {folder} and --workdir {folder}/runs/a." in ran.stderr


def test_dockerfile(machine):
    """What it copies is there and not ignored; the extras are those of setup.py."""
    root = machine.root
    text = (root / "launch" / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for name in line.split()]
    kept = (root / "launch" / "Dockerfile.dockerignore").read_text().splitlines()
    assert sorted(copied) == sorted(line[1:] for line in kept if line.startswith("!"))
    assert all((root / name).exists() for name in copied)
    extras = re.findall(r'extra="\[(\w+)\]"', text)
    assert sorted(extras) == ["cuda", "tpu"]
    setup = (root / "setup.py").read_text()
    assert all(f'"{extra}": [' in setup for extra in extras)
    assert re.search(r"^USER (?!root)", text, re.M)
    assert 'ENTRYPOINT ["avt"]' in text
