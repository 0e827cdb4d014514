"""Ctrl-C while a command starts ends it with 130 and one line, whatever is being imported."""

import os
import signal
import subprocess
import sys

import pytest
from quick_flags import QUICK_FLAGS

from avt_jax.cli import interrupts

TRAIN = ["train", "--config", "quickstart:smoke", "--config.data.path=generated:20:label=4"]


def start(words, **env):
    """A command that tells on stderr what it has imported."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICK_FLAGS} | env
    command = [sys.executable, "-X", "importtime", "-m", "avt_jax", *words]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env
    )


def interrupted_after(process, text):
    """What is said after the line with `text`, at which Ctrl-C comes."""
    with process:
        try:
            for line in process.stderr:
                if text in line:
                    break
            else:
                pytest.fail(f"{text} never came")
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
        finally:
            process.kill()
    return [line for line in rest.splitlines() if not line.startswith("import time:")]


@pytest.mark.parametrize(
    "module", ["avt_jax.cli.common", "numpy", "jaxlib", "jax.numpy", "orbax.checkpoint", "grain"]
)
def test_while_modules_are_imported(tmp_path, module):
    # Without the second start every module is imported once.
    process = start([*TRAIN, "--workdir", str(tmp_path / "run")], GLIBC_TUNABLES="")
    assert interrupted_after(process, f" {module}\n") == ["avt: interrupted"]
    assert process.returncode == 130
    assert not (tmp_path / "run").exists()


def test_about_the_second_start(tmp_path):
    process = start([*TRAIN, "--workdir", str(tmp_path / "run")])
    said = interrupted_after(process, " avt_jax.cli.processes.start\n")
    assert said == ["avt: interrupted"] and process.returncode == 130


def test_where_a_command_tidies_up_it_raises():
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupts.end_at_once()
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        interrupts.raise_again()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupts.end_at_once()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "as nohup wants it"
    finally:
        signal.signal(signal.SIGINT, before)


BUSY = """
import hashlib
from avt_jax.cli import interrupts
interrupts.end_at_once()
interrupts.listen()
print("busy", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def test_while_the_main_thread_is_in_c():
    """As while XLA compiles: Python's own handler would come after it."""
    words = [sys.executable, "-c", BUSY]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "busy\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()
        assert process.stderr.read() == "avt: interrupted\n"
