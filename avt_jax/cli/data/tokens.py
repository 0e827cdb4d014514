"""`avt tokens`: frozen encoders run once over all clips, to train on what they give."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from avt_jax.cli import interrupts
from avt_jax.cli.common import add_step, parser, run
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import show

EPILOG = """\
  avt tokens shards --checkpoint runs/mine --out tokens
  avt tokens shards --config own:base --init.video uniformer-b-k400 \\
      --init.audio ast-audioset-16 --out tokens
  avt train --config own:tokens --workdir runs/rest --config.data.path=tokens
  avt evaluate --checkpoint runs/rest --split val
  avt tokens --join runs/rest --out runs/whole
  avt predict video.mp4 --checkpoint runs/whole

The encoders' tokens are stored before the projection to the fusion's width, in float16 where the
model computes in bfloat16, of which it loses nothing, else in float32. With --views N each training
clip is also stored N times varied, as the config's block data varies training clips, and a training
takes one of these at random; what is evaluated is never varied. The folder keeps the encoders'
weights too, and appears when it is complete. docs/finetuning.md says more.
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt tokens`; config overrides are read apart from it."""
    cli = parser("tokens", "Run frozen encoders once, and keep their tokens.", EPILOG)
    cli.add_argument("shards", nargs="?", metavar="SHARDS", help="shard folder of the clips")
    cli.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="new folder")
    cli.add_argument("--checkpoint", metavar="RUN_DIR", help="take the encoders of a trained run")
    cli.add_argument(
        "--config",
        metavar="FILE[:ARG]",
        help="take those of a recipe, which --config.field=value changes, with the weights below",
    )
    for name in ("video", "audio"):
        cli.add_argument(
            f"--init.{name}",
            dest=f"init_{name}",
            metavar="WEIGHTS",
            help=f"the {name} encoder's: converted weights, a name of 'avt weights list', or a run",
        )
    cli.add_argument(
        "--views",
        type=int,
        default=0,
        metavar="N",
        help="varied views of each training clip (default %(default)s)",
    )
    cli.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of how they vary (default %(default)s)"
    )
    cli.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="clips at once (default %(default)s)"
    )
    add_step(cli)
    group = cli.add_argument_group("back to a whole model")
    group.add_argument(
        "--join",
        metavar="RUN_DIR",
        help="write a run of the encoders and of this one, which was trained on their tokens",
    )
    group.add_argument("--tokens", metavar="FOLDER", help="its tokens, where they were moved")
    return cli


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code.

    Raises:
      UserError: a bad option, no such clips or encoders, or a folder that cannot be written.
    """
    args, overrides = build_parser().parse_known_args(sys.argv[1:] if argv is None else argv)
    for name, least in (("views", 0), ("seed", 0), ("batch_size", 1)):
        if getattr(args, name) < least:
            option = name.replace("_", "-")
            raise UserError(f"--{option} {getattr(args, name)}: give {least} or more.")
    if overrides and not args.config:
        raise UserError(f"unexpected argument {overrides[0]!r}; overrides go with --config.")
    if args.join:
        return _join(args)
    if args.shards is None or (args.checkpoint is None) == (args.config is None):
        raise UserError("give a shard folder, and either --checkpoint or --config; or --join.")
    if args.tokens:
        raise UserError("--tokens is for --join; leave it out.")
    return _cache(args, overrides)


def _cache(args: argparse.Namespace, overrides: list[str]) -> int:
    from avt_jax.experiment.tokens.cache import cache_tokens
    from avt_jax.experiment.tokens.encoders import encoders_of_recipe, encoders_of_run
    from avt_jax.host.new_folder import check_new_folder

    check_new_folder(args.out)
    given = {name: getattr(args, f"init_{name}") for name in ("video", "audio")}
    given = {name: folder for name, folder in given.items() if folder}
    if args.checkpoint:
        if given:
            raise UserError("--init.video and --init.audio go with --config, not --checkpoint.")
        encoders = encoders_of_run(args.checkpoint, args.step)
    else:
        encoders, said = encoders_of_recipe(args.config, args.shards, overrides, given)
        for line in said:
            show(line)
    begun = time.monotonic()
    interrupts.raise_again()  # what is half-written is removed
    found = cache_tokens(
        encoders,
        args.shards,
        args.out,
        views=args.views,
        batch_size=args.batch_size,
        seed=args.seed,
    )
    shapes = ", ".join(f"{name} {n} x {d}" for name, (n, d) in found.tokens.shapes.items())
    show(
        f"{args.out}: tokens of {found.clips} clips ({shapes}, {found.tokens.dtype}), "
        f"{found.num_bytes / 1e6:.1f} MB, in {time.monotonic() - begun:.1f} s"
    )
    show(
        f"next: avt train --config own:tokens --workdir RUN --config.data.path={args.out}",
        flush=True,
    )
    return 0


def _join(args: argparse.Namespace) -> int:
    if args.shards or args.checkpoint or args.config:
        raise UserError("--join takes a run that was trained on tokens, and --out; nothing else.")
    from avt_jax.experiment.tokens.whole import join_run

    found = join_run(args.join, args.out, tokens=args.tokens, step=args.step)
    show(f"{found}: the encoders and {args.join}, for 'avt evaluate' and 'avt predict'")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
