"""launch/local.sh: several processes on one machine."""

import signal
import sys

import pytest


def lines_until(process, *wanted):
    """Reads stdout until all of these lines were there."""
    missing = set(wanted)
    while missing:
        line = process.stdout.readline()
        assert line, f"ended before {missing}: {process.stderr.read()}"
        missing.discard(line.strip())


def test_dry_run_is_what_runs(machine, nasty):
    machine.program("avt")
    arguments = ["--processes", "3", "--devices-per-process", "4", "--port", "23456"]
    shown = machine.run("local.sh", *arguments, "--dry-run", "--", *nasty, XLA_FLAGS="--xla_a=1")
    assert shown.returncode == 0, shown.stderr
    assert machine.calls() == []
    ran = machine.run("local.sh", *arguments, "--", *nasty, XLA_FLAGS="--xla_a=1")
    assert ran.returncode == 0, ran.stderr
    calls = sorted(machine.calls())
    common = ["avt", "train", "--coordinator", "127.0.0.1:23456", "--num-processes", "3"]
    assert calls == [[*common, "--process-id", str(i), *nasty] for i in range(3)]
    for call in machine.noted:
        assert call["env"]["JAX_PLATFORMS"] == "cpu"
        flags = call["env"]["XLA_FLAGS"].split()
        assert flags == ["--xla_a=1", "--xla_force_host_platform_device_count=4"]
    # What was shown, typed into a shell.
    machine.shell(shown.stdout)
    assert machine.calls() == calls


def test_gpus_are_shared_out(machine):
    machine.program("avt")
    machine.run("local.sh", "--platform", "cuda", "--devices-per-process", "2", "--", "--x")
    machine.calls()
    seen = {call["argv"][6]: call["env"]["CUDA_VISIBLE_DEVICES"] for call in machine.noted}
    assert seen == {"0": "0,1", "1": "2,3"}


def test_a_free_port_is_found(machine):
    machine.program("avt")
    machine.run("local.sh", "--", "--x")
    ports = {call[3] for call in machine.calls()}
    assert len(ports) == 1
    assert 20000 <= int(ports.pop().removeprefix("127.0.0.1:")) < 32768


def test_lines_have_the_number_of_their_process(machine, training):
    machine.program("avt", training)
    ran = machine.run("local.sh", "--processes", "3", "--", "--x")
    assert ran.returncode == 0
    assert sorted(ran.stdout.splitlines()) == ["[0] up 0", "[1] up 1", "[2] up 2"]


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_are_handed_on(machine, training, number, code):
    machine.program("avt", training)
    process = machine.start("local.sh", "--", "--wait")
    lines_until(process, "[0] up 0", "[1] up 1")
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert out.count(f"got {number.name}") == 2
    assert process.returncode == code


def test_a_second_signal_ends_at_once(machine, training):
    machine.program("avt", training)
    process = machine.start("local.sh", "--", "--wait", "--stubborn")
    lines_until(process, "[0] up 0", "[1] up 1")
    process.send_signal(signal.SIGTERM)
    lines_until(process, "[0] got SIGTERM", "[1] got SIGTERM")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 137


def test_when_one_fails_the_others_end(machine, training):
    machine.program("avt", training)
    ran = machine.run("local.sh", "--processes", "3", "--", "--wait", "--code1=7")
    assert ran.returncode == 7
    assert ran.stdout.count("got SIGTERM") == 2
    assert "process 1 ended with exit code 7" in ran.stderr


def test_who_does_not_end_in_time_is_killed(machine, training):
    machine.program("avt", training)
    ran = machine.run("local.sh", "--grace", "0", "--", "--wait", "--stubborn", "--code0=3")
    assert ran.returncode == 3


def test_with_a_real_python(machine):
    machine.program("avt", f"#!{sys.executable}\nimport sys\nprint('Python', sys.argv[7])\n")
    ran = machine.run("local.sh", "--", "--x")
    assert sorted(ran.stdout.splitlines()) == ["[0] Python 0", "[1] Python 1"]


def test_a_bucket_has_to_be_mounted_and_how(machine):
    """The command in the message is one that works, given to a shell as it is."""
    ran = machine.run("local.sh", "--", "--workdir", "gs://my-b/runs/a")
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1
    machine.program("gcsfuse")
    command = ran.stderr.partition("mount the bucket, ")[2].partition(", and give ")[0]
    machine.shell(command)
    (call,) = machine.calls()
    folder = f"{machine.home}/avt-gcs/my-b"
    assert call[-2:] == ["my-b", folder] and "--implicit-dirs" in call
    assert (machine.home / "avt-gcs" / "my-b").is_dir()
    assert ran.stderr.endswith(f"and give --workdir {folder}/runs/a.\n")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--", "--workdir=s3://b/a"], "which is no file system; give a folder"),
        (["--", "--workdir", "gs://my-b"], "it must be gs://BUCKET/FOLDER"),
        (["--processes", "0", "--", "--x"], "--processes is 0; it must be 1 or more"),
        (["--processes", "-1", "--", "--x"], "--processes is '-1'; it must be a whole number"),
        (["--processes"], "--processes needs a value"),
        (["--platform", "tpu", "--", "--x"], "--platform is 'tpu'; it must be cpu or cuda"),
        (["--config", "a"], "unknown option '--config'"),
        ([], "no arguments for 'avt train'"),
        (["--", "--x"], "'avt' was not found"),
    ],
)
def test_mistakes(machine, arguments, said):
    ran = machine.run("local.sh", *arguments)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
