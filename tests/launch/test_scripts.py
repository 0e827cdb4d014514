"""What every script of launch/ keeps to."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    [*ROOT.glob("launch/**/*.sh"), ROOT / "launch" / "slurm.sbatch", ROOT / ".ci" / "run"]
)
HELPED = [
    "setup.sh", "quickstart.sh", "local.sh", "tpu_pod.sh", "tpu_worker.sh", "gke/submit.sh",
    "slurm.sbatch", "docker.sh",
]  # fmt: skip


def test_shellcheck():
    beside = Path(sys.executable).parent / "shellcheck"
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed (extra 'test'); runs wherever it is")
    ran = subprocess.run(
        [program, "--external-sources", "--source-path=SCRIPTDIR", *map(str, SCRIPTS)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("script", HELPED)
def test_help(machine, script):
    ran = machine.run(script, "--help")
    assert ran.returncode == 0, ran.stderr
    assert Path(script).name in ran.stdout
    assert "set -" not in ran.stdout and "shellcheck" not in ran.stdout
    assert not any(line.startswith("#") for line in ran.stdout.splitlines())
