"""`avt compile`: the training step of a config, compiled for TPUs that are not here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from avt_jax.cli.common import parser, progress, run
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import show

if TYPE_CHECKING:
    from avt_jax.experiment.cost.compile import CompileReport
    from avt_jax.host.output.tables import PlainTable

EPILOG = """\
  avt compile --topology v5e:4x4 --config vggsound --batch-per-chip 8
  avt compile --topology v5p:2x2x2 --config mbt_vggsound --largest-batch --effort=-1

Needs no TPU, but the compiler for it: pip install avt_jax[aot]. Memory and collectives are what the
compiler plans; times are estimates, good for comparing one form of a program with another. A large
model takes minutes and gigabytes to compile; --effort=-1 is several times quicker and gives poorer
code, so take memory and collectives from it, and not times. Exit code 1: it does not fit.
"""
_MIB = 2**20


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt compile`; config overrides are read apart from it."""
    cli = parser("compile", "A config's training step on TPUs that are not here.", EPILOG)
    add = cli.add_argument
    add("--topology", required=True, metavar="CHIP:GRID", help="such as v5e:4x4 or v5p:2x2x2")
    add("--config", required=True, metavar="FILE[:ARG]", help="config file or recipe")
    add("--batch-per-chip", type=int, metavar="N", help="clips (default: the config's, divided)")
    add(
        "--classes",
        help="such as label=309 or verb=97,noun=300, label=527+ of a multi-label set "
        "(default: those of the shards)",
    )
    add("--largest-batch", action="store_true", help="find the most clips per chip that fit")
    add("--effort", type=float, metavar="X", help="of the compiler, -1 (quick) to 1")
    add("--json", action="store_true", help="print the figures as JSON instead")
    return cli


class _Page:
    """Prints a report, table by table."""

    def __init__(self, report: CompileReport, spec: str):
        from avt_jax.host.output.tables import new_console

        self.report, self.spec = report, spec
        self.console = new_console()

    def print(self) -> None:
        """The whole report; of a step that does not fit, its memory alone."""
        report, say = self.report, self.console.print
        chips, heads = report.topology.num_chips, report.classes.items()
        say(
            f"{self.spec} on {report.topology.name}: {chips} chips, {report.batch_per_chip} clips "
            f"a chip, {chips * report.batch_per_chip} a step, {report.precision}, "
            f"classes: {', '.join(f'{name} {number}' for name, number in heads)}"
        )
        self._memory()
        if report.largest_batch is not None:
            say(f"largest batch that fits: {report.largest_batch} clips a chip")
        if report.cost is not None:
            self._amounts("part", lambda origin: origin.part)
            self._amounts("kind of operation", lambda origin: origin.kind)
            self._collectives()
            self._times()
            self._notes()

    def _memory(self) -> None:
        report, usable = self.report, self.report.topology.chip.hbm_bytes
        if report.memory is None:
            needed = report.tries[0].needed_bytes
            asked = "more" if needed is None else f"{needed / _MIB:,.0f} MiB"
            self.console.print(
                f"does not fit: the compiler needs {asked} of {usable / _MIB:,.0f} MiB on a chip"
            )
            return
        sizes = report.memory
        table = _table("memory of a chip", "what", "MiB")
        for name, size in (
            ("arguments: parameters, optimiser, batch", sizes.arguments),
            ("results that reuse no argument", sizes.outputs - sizes.aliased),
            ("temporaries", sizes.temporaries),
            ("program", sizes.code),
            ("peak", sizes.peak),
            ("usable", usable),
        ):
            table.row(name, f"{size / _MIB:,.1f}")
        self.console.print(table)
        left = usable - sizes.peak
        self.console.print(
            f"fits, {left / _MIB:,.0f} MiB to spare"
            if left >= 0
            else f"does not fit: {-left / _MIB:,.0f} MiB too much"
        )

    def _amounts(self, what: str, key: Callable[[Any], str]) -> None:
        cost, chip = self.report.cost, self.report.topology.chip
        assert cost is not None
        stages = sorted({origin.stage for origin in cost.amounts}, key=_STAGES.index)
        title = f"estimated ms a step on a chip, by {what}"
        table = _table(title, what, *stages, "all", "share", "by bytes", "Mcycles")
        for name, amount in cost.by(key).items():
            found = dict.fromkeys(stages, 0.0)
            for origin, one in cost.amounts.items():
                if key(origin) == name:
                    found[origin.stage] += one.seconds
            table.row(
                name,
                *(_ms(seconds) for seconds in found.values()),
                _ms(amount.seconds),
                f"{amount.seconds / cost.compute_sec:.1%}",
                _ms(amount.bytes / chip.hbm_bandwidth),
                f"{amount.cycles / 1e6:,.2f}",
            )
        self.console.print(table)

    def _collectives(self) -> None:
        cost, topology = self.report.cost, self.report.topology
        assert cost is not None
        table = _table("collectives a step", "kind", "count", "MB a chip", "ms alone")
        for kind, total in cost.collective_totals.items():
            seconds = sum(one.seconds(topology) for one in cost.collectives if one.kind == kind)
            table.row(kind, f"{total.count:,}", f"{total.bytes / 1e6:,.3f}", _ms(seconds))
        if not cost.collectives:
            table.row("none", "0", "0", "0")
        self.console.print(table)

    def _times(self) -> None:
        report, say = self.report, self.console.print
        say(
            f"{report.flops / 1e12:,.4f} TFLOP a step on all chips (products and convolutions), "
            f"{report.repeated_flops / 1e12:,.4f} of them computed a second time"
        )
        table = _table(
            "estimated step", "collectives", "ms", "MFU", "scaling efficiency", "clips/s a chip"
        )
        for name, overlap in (("without overlap", False), ("with overlap", True)):
            seconds = report.step_sec(overlap=overlap)
            table.row(
                name,
                _ms(seconds),
                f"{report.mfu(overlap=overlap):.2%}",
                f"{report.efficiency(overlap=overlap):.1%}",
                f"{report.batch_per_chip / seconds:,.1f}",
            )
        say(table)

    def _notes(self) -> None:
        cost, say = self.report.cost, self.console.print
        assert cost is not None
        took = ", ".join(f"{name} {sec:.1f} s" for name, sec in self.report.seconds.items())
        say(f"compiled here in: {took}")
        if cost.pallas.count:
            say(f"Pallas calls: {cost.pallas.count}, {_ms(cost.pallas.seconds)} ms by counting")
        if cost.without_cycles:
            rest = ", ".join(f"{name} {times}" for name, times in cost.without_cycles.items())
            say(f"without cycles, estimated by their bytes: {rest}")
        for loop in cost.unknown_loops:
            say(f"a loop of unknown length counts once: {loop}")
        say("\nassumptions:")
        for line in self.report.assumptions:
            say(f"- {line}", soft_wrap=True)


def _table(title: str, *columns: str) -> PlainTable:
    from avt_jax.host.output.tables import PlainTable

    return PlainTable(title, *columns)


_STAGES = ("forward", "recomputed", "backward", "update")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.3f}"


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args, overrides = build_parser().parse_known_args(argv)
    if args.batch_per_chip is not None and args.batch_per_chip < 1:
        raise UserError(f"--batch-per-chip {args.batch_per_chip} must be 1 or more.")
    if args.effort is not None and not -1 <= args.effort <= 1:
        raise UserError(f"--effort {args.effort} must be from -1 to 1.")
    import jax

    from avt_jax.experiment.config import load_config
    from avt_jax.experiment.cost import compile_step, read_classes

    # With libtpu installed JAX would look for a TPU here, and may wait for one.
    jax.config.update("jax_platforms", "cpu")
    config = load_config(args.config, overrides)
    say = progress()
    report = compile_step(
        config,
        args.topology,
        batch_per_chip=args.batch_per_chip,
        classes=read_classes(args.classes, config.data.path, say),
        largest_batch=args.largest_batch,
        effort=args.effort,
        say=say,
    )
    if args.json:
        show(json.dumps(report.to_dict(), indent=2))
    else:
        _Page(report, args.config).print()
    return 0 if report.fits else 1


if __name__ == "__main__":
    sys.exit(run(main))
