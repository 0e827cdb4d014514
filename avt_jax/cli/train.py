"""`avt train`: from shards and a config to a trained model in a run folder."""

from __future__ import annotations

import argparse
import functools
import re
import sys
from pathlib import Path

from avt_jax.cli.common import parser, run
from avt_jax.cli.processes import job
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import show

EPILOG = """\
A config is a Python file or the name of a recipe, with an argument after a colon:

  avt train --config quickstart --workdir runs/mine --config.data.path=shards
  avt train --config kinetics_sounds:smoke --workdir runs/try     (seconds, on generated data)

Any field can be changed: --config.optimizer.lr=3e-4 --config.model.modalities=audio. 'avt config
quickstart --doc' shows them all. A workdir that holds a run continues it from its last checkpoint:
the same command resumes, and its length, learning rate, precision, batch size, paths and what is
logged may be other ones then.

""" + job.EPILOG.format(command="train")


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt train`; config overrides are read apart from it."""
    cli = parser("train", "Train a model from a config.", EPILOG)
    cli.add_argument("--config", required=True, metavar="FILE[:ARG]", help="config file or recipe")
    cli.add_argument("--workdir", required=True, type=Path, help="the run's folder")
    group = cli.add_argument_group("profiling")
    group.add_argument(
        "--profile-steps",
        metavar="FIRST:LAST",
        help="record a trace of these steps, such as 10:13, for xprof; the first step compiles",
    )
    group.add_argument(
        "--profile-dir", type=Path, metavar="DIR", help="where it goes (default WORKDIR/profile)"
    )
    job.add_options(cli)
    return cli


def _steps(text: str | None) -> tuple[int, int] | None:
    """FIRST:LAST as numbers; whether there are such steps the training knows."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,18}):(\d{1,18})", text)
    if found is None:
        raise UserError(
            f"--profile-steps {text!r} is not FIRST:LAST; give two steps, such as 10:13."
        )
    return int(found[1]), int(found[2])


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args, overrides = build_parser().parse_known_args(argv)
    steps = _steps(args.profile_steps)
    if args.profile_dir and not steps:
        raise UserError("--profile-dir is of no use without --profile-steps; give both.")

    def command() -> None:
        from avt_jax.experiment.config import load_config
        from avt_jax.experiment.run_training import train

        say = functools.partial(show, flush=True)
        train(
            load_config(args.config, overrides),
            args.workdir,
            say=say,
            profile_steps=steps,
            profile_dir=args.profile_dir,
        )

    return job.run(args, command)


if __name__ == "__main__":
    sys.exit(run(main))
