"""`avt ablate`: the same training under several settings and seeds, as a table and a plot."""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avt_jax.cli.common import parser, run
from avt_jax.host.output.terminal import show

if TYPE_CHECKING:
    from avt_jax.evaluation.ablation import Row
    from avt_jax.experiment.ablations.grid import Study

EPILOG = """\
Axes and their settings:
  losses    classification alone, with each other term by itself, and all terms of the config
  masking   how sound is hidden from the reconstruction term, and that term left out
  fusion    bottleneck tokens, their exchange, merged attention, cross-attention

  avt ablate --config ablation --axis losses --config.data.path=shards
  avt ablate --config ablation --axis masking --seeds 5 --out runs/study --settings none,activity

Everything else is as the config says; runs of one seed see the same data in the same order. A
finished run is not repeated and an interrupted one continues from its last checkpoint: give the
same command again. The table (AXIS.md, AXIS.csv) is rewritten after every run; AXIS.png is drawn
at the end. A setting that fails is named in the table with its reason.
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt ablate`; config overrides are read apart from it."""
    cli = parser("ablate", "Compare settings of a training over several seeds.", EPILOG)
    add = cli.add_argument
    add("--config", required=True, metavar="FILE[:ARG]", help="config file or recipe")
    add("--axis", required=True, metavar="AXIS", help="what is varied: losses, masking, fusion")
    add("--settings", metavar="A,B", help="only these settings of the axis")
    add("--seeds", type=int, default=3, metavar="N", help="runs a setting (default %(default)s)")
    add("--out", type=Path, default=Path("runs/ablation"), help="folder (default %(default)s)")
    add("--split", default="test", help="split to evaluate (default %(default)s)")
    add("--dry-run", action="store_true", help="print the runs as commands, do nothing")
    add("--report", action="store_true", help="run nothing, only write table and plot again")
    return cli


def commands(study: Study) -> list[str]:
    """The grid as commands that would do the same; finished runs are marked."""
    from avt_jax.experiment.ablations.study import RUN, is_finished

    lines = []
    for one in study.runs:
        workdir = str(one.folder / RUN)
        lines.append(
            f"# {one.label}, seed {one.seed}"
            f"{' (finished)' if is_finished(one, study.split) else ''}"
        )
        changes = [f"--config.{field}={value}" for field, value in one.changes.items()]
        words = ["avt", "train", "--config", study.config, "--workdir", workdir, *changes]
        lines.append(shlex.join(words))
        words = ["avt", "evaluate", "--checkpoint", workdir, "--split", study.split]
        lines.append(shlex.join(words))
    return lines


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code, 1 when a setting or run failed.

    Raises:
      UserError: a mistake that concerns every run.
    """
    argv = sys.argv[1:] if argv is None else argv
    args, overrides = build_parser().parse_known_args(argv)
    from avt_jax.experiment.ablations import study as studies
    from avt_jax.experiment.ablations.grid import plan_study

    study = plan_study(
        args.config,
        args.axis,
        settings=args.settings.split(",") if args.settings else (),
        seeds=args.seeds,
        out=args.out,
        split=args.split,
        overrides=overrides,
    )
    if args.dry_run:
        show("\n".join(commands(study)))
        return 0
    say = functools.partial(show, file=sys.stderr, flush=True)
    if not args.report:
        try:
            studies.run_study(study, say=say)
        except KeyboardInterrupt:
            say("stopped; the same command continues")
            raise
    written = studies.write_table(study, picture=True)
    rows = studies.collect(study)
    _print(rows, f"{study.axis}, {study.split} split")
    show("\n".join(f"wrote {path}" for path in written))
    return int(any(row.errors for row in rows))


def _print(rows: Sequence[Row], title: str) -> None:
    from avt_jax.evaluation import ablation
    from avt_jax.host.output.tables import PlainTable, new_console

    head, *lines = ablation.cells(rows)
    table = PlainTable(title, *head, left=(0, 7))
    for line in lines:
        table.row(*line)
    new_console().print(table)


if __name__ == "__main__":
    sys.exit(run(main))
