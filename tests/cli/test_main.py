"""The dispatcher: help, version, unknown commands, errors and exit codes."""

import subprocess
import sys

import pytest

from avt_jax import __version__
from avt_jax.cli import common
from avt_jax.cli.main import COMMANDS, main
from avt_jax.errors import UserError


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: avt {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs_as_a_module(command):
    result = subprocess.run(
        [sys.executable, "-m", f"avt_jax.cli.{COMMANDS[command][0]}", "--help"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0 and f"usage: avt {command}" in result.stdout


def test_usage_and_version(capsys):
    assert main(["--help"]) == 0 and main([]) == 2 and main(["--version"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS) and f"avt_jax {__version__}" in out


def test_unknown_command(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == (
        "avt: error: unknown command 'trian' (did you mean 'train'?); 'avt --help' lists them.\n"
    )


def test_exit_codes(capsys):
    def fails(error):
        def command(argv):
            raise error

        return command

    assert common.run(fails(UserError("no.")), []) == 2
    assert common.run(fails(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == "avt: error: no.\navt: interrupted\n"
