"""Estimates the training steps of whole models on TPUs that are not here.

    python benchmarks/tpu_estimate.py --model vggsound --topology v5e:4x4 v6e:4x4 v5p:2x2x4
    python benchmarks/tpu_estimate.py --model mbt_vggsound --topology v5e:4x4 --batch-per-chip 8 \\
        --variant stored model.remat=False --variant recomputed model.remat=True

Compiles each with `avt compile` in a process of its own (the compiler takes gigabytes, and what is
not done after `--limit-min` is given up), and writes tables in Markdown and all figures as JSON.
The cycles are the compiler's estimates: compare forms with them, and quote no time. Needs the extra
`aot`. benchmarks/tpu_kernels.py does the same for the forms of single operations.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
MIB = 2**20
STAGES = ("forward", "recomputed", "backward", "update")


def main() -> int:
    """Writes the tables and the figures."""
    args, overrides = parse_args()
    variants = {name: fields for name, *fields in args.variant} or {"": []}
    found = []
    for model in args.model:
        for topology in args.topology:
            for variant, fields in variants.items():
                title = " ".join(filter(None, (model, variant, "on", topology)))
                words = [*overrides, *(f"--config.{field}" for field in fields)]
                row = compile_one(args, model, topology, words)
                found.append({"model": model, "variant": variant, "title": title, **row})
                write(args, found)  # after each: the next may take an hour
    return 0


def parse_args() -> tuple[argparse.Namespace, list[str]]:
    """Reads the command line: (arguments, config overrides of every compilation)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", nargs="+", default=["vggsound", "mbt_vggsound"], help="recipes or config files")
    add("--topology", nargs="+", default=["v5e:4x4", "v6e:4x4", "v5p:2x2x4"])
    add("--batch-per-chip", type=int, default=8)
    add("--classes", default="label=309")
    add(
        "--variant",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "FIELD=VALUE"),
        help="a name, and fields of the config that it changes; may be given several times",
    )
    add("--largest-batch", action="store_true", help="search it for each")
    add("--effort", type=float, help="of the compiler, -1 (quick, poorer code) to 1")
    add("--limit-min", type=float, default=60.0, help="of one compilation")
    add("--out", type=Path, help="Markdown (default: printed at the end)")
    add("--json", type=Path, default=RESULTS / "tpu_estimate.json")
    return parser.parse_known_args()


def compile_one(
    args: argparse.Namespace, model: str, topology: str, words: Sequence[str]
) -> dict[str, Any]:
    """The figures of one compilation; {"failed": why} where there are none."""
    command = ["-m", "avt_jax", "compile", "--json", "--topology", topology, "--config", model]
    command += ["--batch-per-chip", str(args.batch_per_chip), "--classes", args.classes, *words]
    command += ["--largest-batch"] * args.largest_batch
    if args.effort is not None:
        command.append(f"--effort={args.effort}")
    return run_python(command, args.limit_min)


def run_python(command: Sequence[str], limit_min: float) -> dict[str, Any]:
    """What a Python program prints as JSON, with what it took here."""
    print(f"python {' '.join(command)}", file=sys.stderr, flush=True)
    start_sec = time.monotonic()
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        text, _ = process.communicate(timeout=limit_min * 60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"failed": f"not compiled after {limit_min:g} min"}
    took = {"took_sec": round(time.monotonic() - start_sec, 1)}
    if process.returncode not in (0, 1) or not text.startswith("{"):
        return took | {"failed": f"exit code {process.returncode}"}
    found: dict[str, Any] = json.loads(text)
    return took | found


def write(args: argparse.Namespace, found: Sequence[Mapping[str, Any]]) -> None:
    """Writes what is known so far."""
    made_with = versions()
    write_json(args.json, {"command": sys.argv, "versions": made_with, "steps": found})
    page = page_of(found, made_with)
    if args.out:
        args.out.write_text(page, encoding="utf-8")
    elif len(found) == len(args.model) * len(args.topology) * max(1, len(args.variant)):
        print(page)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, with the folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def versions() -> str:
    """The compiler and what writes its programs."""
    names = ("jax", "libtpu", "flax")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def page_of(found: Sequence[Mapping[str, Any]], made_with: str) -> str:
    """All tables."""
    done = [row for row in found if "compute_sec" in row]
    parts = [f"Compiled ahead of time with {made_with}; estimates, not measurements.\n"]
    parts.append(steps_table(found))
    for key, title in (("part", "part"), ("kind", "kind of operation")):
        if done:
            parts += [f"\nEstimated ms a step on a chip, by {title}:\n", amounts_table(done, key)]
    for row in done:
        parts += [f"\n{row['title']}, ms by part and pass:\n", stages_table(row)]
        parts += ["\nCollectives:\n", collectives_table(row)]
    if done:
        parts += ["", *(f"- {row['title']}: {row['assumptions'][1]}" for row in done)]
        parts += [f"- {line}" for line in done[0]["assumptions"][2:]]
    return "\n".join(parts) + "\n"


def steps_table(found: Sequence[Mapping[str, Any]]) -> str:
    """One row for each compilation."""
    header = (
        "step", "clips a chip", "peak MiB", "usable", "largest batch", "TFLOP", "recomputed",
        "computation ms", "collectives ms", "step ms", "MFU", "efficiency without / with overlap",
        "compiled in s",
    )  # fmt: skip
    rows = []
    for row in found:
        if "failed" in row:
            rows.append([row["title"], row["failed"], *[""] * (len(header) - 2)])
            continue
        largest = row["largest_batch"] if row["largest_batch"] is not None else ""
        cells: list[object] = [row["title"], row["batch_per_chip"]]
        if not row["fits"]:
            needed = row["tries"][0]["needed_bytes"]
            asked = f"{needed / MIB:,.0f}, too much" if needed else "too much"
            cells += [asked, f"{row['hbm_bytes'] / MIB:,.0f}", largest, *[""] * 8]
        else:
            cells += [f"{row['memory']['peak'] / MIB:,.0f}", f"{row['hbm_bytes'] / MIB:,.0f}"]
            cells += [largest, f"{row['flops'] / 1e12:.2f}", f"{row['repeated_flops'] / 1e12:.2f}"]
            cells += [ms(row["compute_sec"]), ms(row["collective_sec"])]
            cells += [ms(row["step_sec"]["without_overlap"])]
            cells += [f"{row['mfu']['without_overlap']:.1%}"]
            cells += [" / ".join(f"{share:.1%}" for share in row["efficiency"].values())]
            cells += [f"{row['seconds']['compile']:.0f}"]
        rows.append(cells)
    return table(header, rows)


def amounts_table(done: Sequence[Mapping[str, Any]], key: str) -> str:
    """One column for each compilation, one row for each part or kind."""
    sums = [added(row["amounts"], lambda amount: amount[key]) for row in done]
    names = sorted(
        {name for one in sums for name in one}, key=lambda name: -max(s.get(name, 0) for s in sums)
    )
    rows = [[name, *(ms(one.get(name, 0)) for one in sums)] for name in names]
    rows.append(["all", *(ms(sum(one.values())) for one in sums)])
    return table([key, *(row["title"] for row in done)], rows)


def stages_table(row: Mapping[str, Any]) -> str:
    """Parts against forward, recomputed, backward and update."""
    cells = added(row["amounts"], lambda amount: (amount["part"], amount["stage"]))
    parts = added(row["amounts"], lambda amount: amount["part"])
    rows = [
        [part, *(ms(cells.get((part, stage), 0)) for stage in STAGES), ms(parts[part])]
        for part in sorted(parts, key=lambda part: -parts[part])
    ]
    return table(["part", *STAGES, "all"], rows)


def collectives_table(row: Mapping[str, Any]) -> str:
    """Kinds, how many, how much."""
    rows = [
        [kind, f"{total['count']:,}", f"{total['bytes'] / 1e6:,.2f}"]
        for kind, total in row["collectives"].items()
    ]
    return table(["kind", "count", "MB a chip"], rows)


def added(amounts: Iterable[Mapping[str, Any]], key: Any) -> dict[Any, float]:
    """Seconds added up by what `key` says."""
    found: dict[Any, float] = {}
    for amount in amounts:
        found[key(amount)] = found.get(key(amount), 0.0) + amount["seconds"]
    return found


def ms(seconds: float) -> str:
    """In milliseconds."""
    return f"{seconds * 1e3:,.2f}"


if __name__ == "__main__":
    sys.exit(main())
