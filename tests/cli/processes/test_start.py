"""The second start of a computing command: once, and only where it is of use."""

import os
import subprocess
import sys

from avt_jax.cli.processes import start as process

_SHOW = (
    "import os, sys; from avt_jax.cli.processes.start import restart_with_kept_memory as again;"
    "again();"
    "print(os.getpid(), sys.argv[1:], os.environ.get('GLIBC_TUNABLES'))"
)


def _run(**environment):
    started = subprocess.Popen(
        [sys.executable, "-c", _SHOW, "a b", "--x"],
        stdout=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | environment,
    )
    return started.pid, started.communicate()[0], started.returncode


def test_restarts_once_with_the_same_words_and_process():
    pid, said, code = _run()
    expected = process.TUNABLES if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    assert (code, said) == (0, f"{pid} ['a b', '--x'] {expected}\n")


def test_leaves_a_setting_of_the_user_alone():
    pid, said, code = _run(GLIBC_TUNABLES="")
    assert (code, said) == (0, f"{pid} ['a b', '--x'] \n")


def test_a_failed_restart_is_no_error(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    tried = []

    def refuse(*words):
        tried.append(words)
        raise OSError("no memory")

    monkeypatch.setattr(os, "execve", refuse)
    process.restart_with_kept_memory()
    assert len(tried) <= 1
    monkeypatch.setattr(sys, "platform", "darwin")
    process.restart_with_kept_memory()
    assert len(tried) <= 1
