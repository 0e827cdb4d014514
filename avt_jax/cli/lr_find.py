"""`avt lr-find`: which learning rate a training should have, from some dozens of steps."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from avt_jax.cli.common import parser, progress, run
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import show

EPILOG = """\
Trains the config's model on its own data for some steps, at a learning rate that grows from --low
to --high, and throws the weights away. Prints the rate at which the smoothed loss falls fastest,
and the one at which it is higher than at the start again; writes lr_find.csv and lr_find.png to
DIR, which is not a run's folder. Start with the first rate, and stay ten times below the second.

  avt lr-find --config own --workdir lr --config.data.path=shards
  avt lr-find --config quickstart:smoke --workdir lr --steps 50      (seconds, on generated data)
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt lr-find`; config overrides are read apart from it."""
    cli = parser("lr-find", "Find a learning rate by a range test.", EPILOG)
    cli.add_argument("--config", required=True, metavar="FILE[:ARG]", help="config file or recipe")
    cli.add_argument(
        "--workdir", required=True, type=Path, metavar="DIR", help="where table and plot go"
    )
    cli.add_argument(
        "--steps", type=int, default=100, metavar="N", help="at most (default %(default)s)"
    )
    cli.add_argument(
        "--low", type=float, default=1e-6, metavar="LR", help="first rate (default %(default)g)"
    )
    cli.add_argument(
        "--high", type=float, default=1.0, metavar="LR", help="last rate (default %(default)g)"
    )
    return cli


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code.

    Raises:
      UserError: a mistake in the config, the data or the folder, or a range that is none.
    """
    argv = sys.argv[1:] if argv is None else argv
    args, overrides = build_parser().parse_known_args(argv)
    if args.steps < 10 or not 0 < args.low < args.high < float("inf"):
        raise UserError(
            f"--steps {args.steps} --low {args.low:g} --high {args.high:g} is no range of learning "
            "rates; give 10 or more steps, from a rate above 0 to a larger one."
        )
    from avt_jax.experiment.assemble import Experiment
    from avt_jax.experiment.config import load_config
    from avt_jax.experiment.rates.range_test import check_folder, find_rate, write

    experiment = Experiment(load_config(args.config, overrides))
    check_folder(args.workdir)
    found = find_rate(experiment, steps=args.steps, low=args.low, high=args.high, say=progress())
    optimizer = experiment.parts.optimizer
    title = f"{optimizer.name}, batches of {experiment.parts.train.batch_size}, {args.config}"
    files = write(found, args.workdir, title=title)
    if found.steepest is None:
        show("the loss never falls: check the data, or take more --steps")
    else:
        show(
            f"the loss falls fastest at {found.steepest:.2g}: "
            f"--config.optimizer.lr={found.steepest:.2g} (the config has {optimizer.lr:.2g})"
        )
    if found.diverges is None:
        show(f"it does not diverge up to {found.rate_n[-1]:.2g}")
    else:
        show(f"it diverges at {found.diverges:.2g}")
    for path in files:
        show(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
