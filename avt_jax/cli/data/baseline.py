"""`avt baseline`: what a few seconds of textbook features reach on shards."""

from __future__ import annotations

import argparse
import json
import sys

from avt_jax.cli import common
from avt_jax.host.output.terminal import show

EPILOG = """\
Edges and colours of one frame of each clip (histograms of oriented gradients, a colour histogram)
and how loud each pitch is (log-mel statistics), 200 principal components of each, logistic
regression. A model is worth its training where it beats this; avt evaluate compares the two.
Multi-label sets have a regression for each class, and mAP.

  avt baseline shards
  avt baseline shards --split val --group-by '(.+)__'
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt baseline`."""
    cli = common.parser("baseline", "Fit a cheap classifier to shards and judge it.", EPILOG)
    cli.add_argument("shards", help="folder that 'avt extract' made, or its URL")
    cli.add_argument("--split", default="test", help="split that is judged (default %(default)s)")
    cli.add_argument(
        "--train-split", default="train", help="split that is fitted to (default %(default)s)"
    )
    cli.add_argument(
        "--group-by",
        metavar="REGEX",
        help="the intervals take sources in which this reads the same for one, as 'avt manifest "
        "--group-by' does",
    )
    cli.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return cli


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code.

    Raises:
      UserError: no such shards or split, or a bad pattern.
    """
    args = build_parser().parse_args(argv)
    from avt_jax.evaluation import report
    from avt_jax.experiment.judging.baseline_run import run_baseline

    found = run_baseline(
        args.shards, split=args.split, train_split=args.train_split, group_by=args.group_by
    )
    if args.json:
        show(
            json.dumps(report.baseline_results(found.found, found.majority, found.chance), indent=1)
        )
        return 0
    from avt_jax.evaluation.multi_label.standing import baseline_table
    from avt_jax.host.output.tables import new_console

    console = new_console()
    about = f"split {args.split}, {found.num_clips} clips, fitted to {found.num_train}"
    for name, top1 in found.found.items():
        title = f"{name}: baseline, {about}"
        if name in found.chance:
            console.print(baseline_table(title, top1, found.chance[name]))
            continue
        chance = 1 / found.classes[name]
        console.print(report.baseline_table(title, top1, found.majority[name], chance))
    return 0


if __name__ == "__main__":
    sys.exit(common.run(main))
