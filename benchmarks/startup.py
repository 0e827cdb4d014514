"""Measures how long `avt train` takes from the command to its first step, as a user waits for it.

    python benchmarks/startup.py --data runs/quickstart/shards

The first start has an empty cache folder, the others find what it has compiled; each has a run
folder of its own. Times are those at which a line appears: "before" ends when the training says
that it compiles (imports, config, shards), "compiling" when it says that it has, "step" with the
first step's metrics.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

# What a line begins with, and the name of the time that ends with it.
MARKS = (("compiling", "before"), ("compiled in", "compiling"), ("step 1/", "step"))
COLUMNS = ("before", "compiling", "step", "all", "CPU")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="shard folder")
    parser.add_argument("--config", default="quickstart", help="a recipe (default: quickstart)")
    parser.add_argument("--repeats", type=int, default=5, help="starts after the first one")
    args = parser.parse_args()
    print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPU cores, load average "
        f"{os.getloadavg()[0]:.1f} at the start, Python {platform.python_version()}, jax "
        f"{metadata.version('jax')}, flax {metadata.version('flax')}; {args.config}; seconds, of "
        f"{args.repeats} later starts: min | median | max\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        runs = [start(args, Path(folder)) for _ in range(1 + args.repeats)]
    print(f"| start | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    print(f"| first | {' | '.join(f'{runs[0][name]:.2f}' for name in COLUMNS)} |")
    cells = [[run[name] for run in runs[1:]] for name in COLUMNS]
    for name, of in (("min", min), ("median", statistics.median), ("max", max)):
        print(f"| later: {name} | {' | '.join(f'{of(values):.2f}' for values in cells)} |")


def start(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Seconds of each part of one start."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    command = [sys.executable, "-m", "avt_jax", "train", "--config", args.config, "--workdir", run]
    command += [f"--config.data.path={args.data}", "--config.train.steps=1"]
    variables = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    env = variables | {"AVT_CACHE": str(folder / "cache")}
    found: dict[str, float] = {}
    began_sec = last_sec = time.perf_counter()
    with subprocess.Popen(
        command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            now_sec = time.perf_counter()
            for mark, name in MARKS:
                if line.startswith(mark) and name not in found:
                    found[name], last_sec = now_sec - last_sec, now_sec
                    found |= {"all": now_sec - began_sec, "CPU": cpu_sec(process.pid)}
    if process.returncode or set(found) != set(COLUMNS):
        raise SystemExit("the training failed; run the command by itself to see why")
    return found


def cpu_sec(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
