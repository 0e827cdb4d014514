"""launch/setup.sh and what other scripts share with it, with a Python that only notes its calls."""

import os
import shutil
import subprocess

import pytest

# Makes an "environment" of itself; what it is asked to do goes to ~/calls, one a line.
PYTHON = """#!{python} -IS
import os, shutil, sys
tool, words = os.path.basename(sys.argv[0]), sys.argv[1:]
with open(os.environ["HOME"] + "/calls", "a") as file:
    file.write(" ".join([tool, *words]).replace("\\n", " ") + "\\n")
if words[:2] == ["-m", "venv"]:
    os.makedirs(words[2] + "/bin", exist_ok=True)
    for name in ("python", "pip", "avt"):
        shutil.copy(sys.argv[0], words[2] + "/bin/" + name)
        if os.environ.get("STOP") == name:
            sys.exit(130)
elif words[:3] == ["-m", "pip", "install"] and os.environ.get("STOP") == "install":
    sys.exit("no network")
elif words == ["--version"]:
    print("avt_jax 9.9" if tool == "avt" else "Python 3.12.1")
elif words[0] == "-c":
    print("3.12.1 some hash")
"""


@pytest.fixture
def setup(machine):
    machine.program("python3.12", PYTHON)

    def run(script="setup.sh", *arguments, **env):
        done = machine.run(script, *arguments, **env)
        calls = machine.home / "calls"
        done.calls = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return done

    return run


def installed(done):
    return [call for call in done.calls if call.startswith("python -m pip install")]


def test_from_nothing_to_a_command(setup, machine):
    done = setup()
    assert done.returncode == 0, done.stderr
    assert f"python3.12 -m venv {machine.checkout}/.venv" in done.calls
    (call,) = installed(done)
    assert call.endswith(f" -q -e {machine.checkout}[test]")
    said = done.stdout.splitlines()
    assert said[-3:] == [
        "== avt_jax 9.9 is ready. In each shell that is to know the command:",
        "    source .venv/bin/activate",
        "    avt --help",
    ]


def test_again_it_installs_nothing_but_what_is_new(setup):
    setup()
    assert not installed(setup())
    (call,) = installed(setup(AVT_EXTRAS="cuda"))
    assert call.endswith("[test,cuda]")


@pytest.mark.parametrize(
    ("shell", "script"), [("/bin/bash", ""), ("/usr/bin/fish", ".fish"), ("/bin/tcsh", ".csh")]
)
def test_the_line_to_activate_fits_folder_and_shell(setup, machine, shell, script):
    setup()
    checkout = machine.checkout.rename(machine.checkout.with_name("my checkout"))
    done = subprocess.run(
        ["bash", str(checkout / "launch" / "setup.sh")],
        cwd="/", env=machine.env | {"SHELL": shell}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    line = done.stdout.splitlines()[-2].strip()
    assert line == f"source {str(checkout).replace(' ', chr(92) + ' ')}/.venv/bin/activate{script}"


@pytest.mark.parametrize("moment", ["python", "install"])
def test_an_interrupted_start_goes_on(setup, moment):
    first = setup(STOP=moment)
    assert first.returncode != 0 and "ready" not in first.stdout
    again = setup()
    assert again.returncode == 0 and installed(again) and "is ready" in again.stdout


def test_a_failed_installation_is_told(setup):
    done = setup(STOP="install")
    assert done.returncode == 2 and "pip could not install the packages" in done.stderr
    assert "no network" in done.stderr


def test_no_python_and_no_options(setup, machine):
    assert setup("setup.sh", "--all").stderr == (
        "avt: error: unknown option '--all'; setup.sh takes none.\n"
    )
    os.unlink(machine.bin / "python3.12")
    done = setup()
    assert done.returncode == 2 and "no Python 3.11, 3.12 or 3.13" in done.stderr


@pytest.mark.parametrize("script", ["quickstart.sh", "test.sh"])
def test_the_other_scripts_use_the_same_environment(setup, machine, script):
    setup()
    shutil.copy(machine.bin / "python3.12", machine.checkout / ".venv" / "bin" / "ruff")
    done = setup(script)
    assert "Using the virtual environment in .venv" in done.stdout and not installed(done)
