"""`avt profile`: what the model of a config costs, without allocating or running it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from avt_jax.cli.common import parser, progress, run
from avt_jax.errors import UserError

if TYPE_CHECKING:
    from avt_jax.experiment.cost import Profile

EPILOG = """\
  avt profile --config vggsound --no-memory
  avt profile --config mbt_vggsound --batch 8 --config.model.fusion=merged --classes label=527

FLOPs are 2 for a multiply-add. "analytic" counts the matrix products and convolutions of the traced
program; "XLA" counts the lowered program, element-wise work included. Memory is XLA's peak for
activations and scratch space on this machine's backend, without parameters, optimiser state and
input; it needs the program compiled, on a CPU up to ten minutes for a large model's training step.
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt profile`; config overrides are read apart from it."""
    cli = parser("profile", "Parameters, FLOPs and memory of a config's model.", EPILOG)
    add = cli.add_argument
    add("--config", required=True, metavar="FILE[:ARG]", help="config file or recipe")
    add("--batch", type=int, default=1, help="clips in the batch (%(default)s)")
    add(
        "--classes",
        help="such as label=309 or verb=97,noun=300, label=527+ of a multi-label set "
        "(default: those of the shards)",
    )
    add("--no-memory", action="store_true", help="do not compile, so no peak memory")
    add("--json", type=Path, metavar="FILE", help="write the figures here as well")
    return cli


def _print(found: Profile, spec: str) -> None:
    from avt_jax.host.output.tables import PlainTable, new_console

    console = new_console()
    heads = ", ".join(f"{name} {number}" for name, number in found.classes.items())
    title = f"{spec}: batch of {found.batch_size}, {found.precision}, classes: {heads}"
    names = ("part", "parameters", "share", "forward GFLOP, analytic", "XLA", "share")
    table = PlainTable(title, *names)
    total = {
        name: sum(getattr(found, name).values())
        for name in ("parameters", "analytic_flops", "xla_flops")
    }

    def row(name: str, parameters: int, analytic: int, xla: int) -> None:
        table.row(
            name,
            f"{parameters:,}",
            f"{parameters / total['parameters']:.1%}",
            f"{analytic / 1e9:,.3f}",
            f"{xla / 1e9:,.3f}",
            f"{xla / total['xla_flops']:.1%}",
        )

    for part, xla in found.xla_flops.items():
        row(part, found.parameters.get(part, 0), found.analytic_flops.get(part, 0), xla)
    table.add_section()
    row("all", *total.values())
    console.print(table)
    if found.trained_parameters < total["parameters"]:
        console.print(f"trained parameters: {found.trained_parameters:,}; the others are frozen")
    if found.step_flops is not None:
        factor = found.step_flops / total["xla_flops"]
        step_gflop = found.step_flops / 1e9
        console.print(f"training step: {step_gflop:,.3f} GFLOP (XLA), {factor:.2f} x forward")
    for name, size in (("forward", found.forward_bytes), ("training step", found.step_bytes)):
        if size is not None:
            megabytes = f"{size / 1e6:,.1f} MB on {found.backend}"
            console.print(f"peak memory of activations, {name}: {megabytes}")


def _write(path: Path, found: Profile) -> None:
    try:
        path.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {path}: {error.strerror}; give a file in a folder.") from error


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args, overrides = build_parser().parse_known_args(argv)
    if args.batch < 1:
        raise UserError(f"--batch {args.batch} must be 1 or more.")
    if args.json and not args.json.absolute().parent.is_dir():
        raise UserError(f"--json {args.json}: there is no such folder; make it first.")
    from avt_jax.experiment.config import load_config
    from avt_jax.experiment.cost import profile_config, read_classes

    config = load_config(args.config, overrides)
    say = progress()
    found = profile_config(
        config,
        read_classes(args.classes, config.data.path, say),
        batch_size=args.batch,
        forward_memory=not args.no_memory,
        training_memory=not args.no_memory,
        say=say,
    )
    _print(found, args.config)
    if args.json:
        _write(args.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
