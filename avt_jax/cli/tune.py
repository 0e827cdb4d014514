"""`avt tune`: finds the fastest forms of the costly operations on this machine."""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import TYPE_CHECKING

from avt_jax.cli.common import parser, run
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import show

if TYPE_CHECKING:
    from avt_jax.experiment.tuning import Tuned

EPILOG = """\
  avt tune --config vggsound
  avt tune --config quickstart --batch 16 --repeats 11

Depthwise convolution and attention have several forms. This times those that can run on the first
device, for the shapes of the config's training step, and keeps the fastest of each in the cache
folder ($AVT_CACHE, else ~/.cache/avt_jax). From then on config.model.kernels="auto" takes them on
this kind of device; delete the file, whose name is printed, to go back. Use an idle machine.
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt tune`; config overrides are read apart from it."""
    cli = parser("tune", "Time the forms of a model's costly operations; keep the fastest.", EPILOG)
    add = cli.add_argument
    add("--config", required=True, metavar="FILE[:ARG]", help="config file or recipe")
    add("--batch", type=int, help="clips on one device (default: the config's over the devices)")
    add("--repeats", type=int, default=5, help="calls of each form (%(default)s)")
    add(
        "--classes",
        help="such as label=309 or verb=97,noun=300, label=527+ of a multi-label set "
        "(default: those of the shards)",
    )
    return cli


def _print(found: Tuned) -> None:
    from avt_jax.host.output.tables import PlainTable, new_console

    title = f"{found.device_kind}: batch of {found.batch_size}, milliseconds"
    names = ("operation", "case", "form", "min", "median", "max", "")
    table = PlainTable(title, *names, left=(0, 1, 2, 6))
    for one in found.timed:
        operation = one.steps[0].replace(" forward", " convolution")
        spread = (min, statistics.median, max)
        cells = [f"{of(one.times_ms):.2f}" for of in spread] if one.times_ms else ["-"] * 3
        note = "chosen" if one.chosen else one.failure
        table.row(operation, one.case, one.form, *cells, note)
    new_console().print(table)
    show(f"kept in {found.path}")  # whole, however long


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args, overrides = build_parser().parse_known_args(argv)
    for name in ("batch", "repeats"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value} must be 1 or more.")
    from avt_jax.experiment.config import load_config
    from avt_jax.experiment.cost import read_classes
    from avt_jax.experiment.tuning import tune_config

    def say(line: str) -> None:
        show(line, file=sys.stderr, flush=True)

    config = load_config(args.config, overrides)
    found = tune_config(
        config,
        read_classes(args.classes, config.data.path, say),
        batch_size=args.batch,
        repeats=args.repeats,
        say=say,
    )
    _print(found)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
