"""A machine for the launch scripts: a copy of the checkout, programs that only note their calls.

Nothing else is on PATH but a few tools of the system, so no test can reach a real gcloud.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SYSTEM = (
    "bash cat cut date dirname env false find git grep gzip head hostname id mkdir mkfifo mktemp "
    "mv nohup rm sed seq setsid sh sleep tail tar true"
).split()  # fmt: skip

# Notes its call, then does what the first rule says whose words are in its arguments. A rule has an
# answer for each call, of which the last is repeated.
FAKE = """#!{python} -IS
import json, os, sys
here = os.path.dirname(os.path.abspath(sys.argv[0]))
tool = os.path.basename(sys.argv[0])
with open(here + "/calls.jsonl", "a") as file:
    file.write(json.dumps({{"tool": tool, "argv": sys.argv[1:], "env": dict(os.environ)}}) + "\\n")
for number, rule in enumerate(json.load(open(here + "/rules.json"))):
    if rule["tool"] == tool and rule["match"] in " ".join(sys.argv[1:]):
        count = here + "/count%d" % number
        before = os.path.getsize(count) if os.path.exists(count) else 0
        open(count, "a").write("x")
        out, code = rule["answers"][min(before, len(rule["answers"]) - 1)]
        (sys.stderr if code else sys.stdout).write(out)
        sys.exit(code)
"""

# A training: says that it is there, and ends at a signal as avt does.
TRAINING = """#!{python} -IS
import os, signal, sys, time
def end(number, frame):
    os.write(1, b"got %s\\n" % signal.Signals(number).name.encode())
    if "--stubborn" not in sys.argv:
        sys.exit(128 + number)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, end)
me = sys.argv[sys.argv.index("--process-id") + 1]
number = int(sys.argv[sys.argv.index("--num-processes") + 1])
up = os.environ["HOME"] + "/up"
open(up + me, "w").close()
os.write(1, b"up %s\\n" % me.encode())
for argument in sys.argv:
    if argument.startswith("--code" + me + "="):
        # Not before the others are there, so that what they do at a signal is certain.
        while not all(os.path.exists(up + str(other)) for other in range(number)):
            time.sleep(0.02)
        sys.exit(int(argument.partition("=")[2]))
if "--wait" in sys.argv:
    time.sleep(60)
"""


class Machine:
    """See above; `checkout` is a git repository with launch/, `home` the home folder."""

    def __init__(self, folder: Path):
        self.root = ROOT
        self.bin, self.home, self.checkout = folder / "bin", folder / "home", folder / "checkout"
        system = folder / "system"
        for made in (self.bin, self.home, system):
            made.mkdir()
        for tool in SYSTEM:
            (system / tool).symlink_to(shutil.which(tool))
        shutil.copytree(ROOT / "launch", self.checkout / "launch")
        self.env = {"PATH": f"{self.bin}:{system}", "HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        self._rules: list[dict[str, object]] = []
        self._write_rules()

    def program(self, tool: str, text: str = FAKE) -> None:
        """Puts a program on PATH."""
        path = self.bin / tool
        path.write_text(text.format(python=sys.executable), encoding="utf-8")
        path.chmod(0o755)

    def rule(self, tool: str, match: str, *answers: tuple[str, int]) -> None:
        """What a program says (on stderr if it fails) and its exit code, for calls with `match`."""
        self._rules.append({"tool": tool, "match": match, "answers": answers})
        self._write_rules()

    def _write_rules(self) -> None:
        (self.bin / "rules.json").write_text(json.dumps(self._rules), encoding="utf-8")

    def commit(self) -> str:
        """Makes the checkout a repository with one commit; returns it."""
        git = ["git", "-C", str(self.checkout), "-c", "user.name=n", "-c", "user.email=e@x"]
        subprocess.run([*git, "init", "--quiet"], check=True)
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message=x"], check=True)
        told = subprocess.run(
            [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
        )
        return told.stdout.strip()

    def start(self, script: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """A script of launch/, started in the checkout; stdout and stderr are pipes."""
        return subprocess.Popen(
            ["bash", f"launch/{script}", *arguments],
            cwd=self.checkout, env=self.env | env, text=True, encoding="utf-8",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """The same, waited for."""
        process = self.start(script, *arguments, **env)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(script, process.returncode, out, err)

    def shell(self, line: str, **options: object) -> subprocess.CompletedProcess[str]:
        """A line as a person would type it in the checkout."""
        return subprocess.run(
            ["bash", "-c", line], cwd=self.checkout, env=self.env, capture_output=True, text=True,
            check=True, timeout=60, **options,
        )  # fmt: skip

    def calls(self, tool: str | None = None) -> list[list[str]]:
        """Arguments of every call so far, the program's name first; then forgets them."""
        path = self.bin / "calls.jsonl"
        if not path.exists():
            return []
        self.noted = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        path.unlink()
        return [
            [call["tool"], *call["argv"]] for call in self.noted if tool in (None, call["tool"])
        ]


@pytest.fixture
def machine(tmp_path):
    """A machine without gcloud, kubectl, srun, docker and avt; `program` brings them."""
    assert os.name == "posix"
    return Machine(tmp_path)


@pytest.fixture
def training():
    """The text of a program that trains, for `Machine.program`."""
    return TRAINING


NASTY = [
    "--config.x=a b",
    "--q='single' \"double\"",
    "--d=$HOME $(id) `id` ${X} $$",
    "--g=* ? [a-z] {a,b} ~",
    "--n=two\nlines\n",
    "--t=tab\there",
    "--b=back\\slash \\n",
    "--m=; | & > < # ! % @NAME@",
    "--u=grün 日本",
    "two  spaces   three",
    "",
]


@pytest.fixture
def nasty():
    """Arguments that a shell, ssh, YAML or Kubernetes would read otherwise if they were let."""
    return list(NASTY)
