"""`avt config`: every field of a recipe, with its value, meaning and allowed range."""

from __future__ import annotations

import argparse
import sys

from avt_jax.cli.common import parser, run
from avt_jax.host.output.terminal import show

EPILOG = """\
  avt config                                        the recipes
  avt config kinetics_sounds --doc                  every field, explained
  avt config vggsound --config.model.video_encoder.name=vit

A line without --doc is an override that other commands take: avt train --config NAME LINE ...
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt config`; config overrides are read apart from it."""
    cli = parser("config", "Print the fields of a recipe.", EPILOG)
    cli.add_argument("config", nargs="?", metavar="FILE[:ARG]", help="config file or recipe")
    cli.add_argument("--doc", action="store_true", help="with meaning and allowed range")
    return cli


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args, overrides = build_parser().parse_known_args(argv)
    from avt_jax.experiment import describe

    if args.config is None:
        show(describe.list_recipes())
    else:
        show(describe.describe_config(args.config, overrides, doc=args.doc))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
