"""`avt convert`: released weights into a folder that a training can start from."""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path
from typing import Any

from avt_jax.cli.common import parser, run
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import show

EPILOG = """\
kinds and the files they are published as:

  uniformer   .pth: Kinetics weights of the video model, or ImageNet weights (inflated in time)
  ast         .pth of the authors or of DeiT; .safetensors of Hugging Face, also several with their
              index (model.safetensors.index.json), or the whole folder
  vit         .npz (augreg)
  mbt         Flax checkpoint (msgpack)

  avt convert uniformer --source uniformer_small_k400_16x4.pth --out weights/uniformer
  avt convert ast --source audioset_16_16_0.4422.pth --out weights/ast
  avt train --config kinetics_sounds --workdir runs/ks --config.data.path=shards \\
      --config.init.video=weights/uniformer --config.init.audio=weights/ast

.pth files need PyTorch: pip install 'avt_jax[convert]'. No code in them is run. Sizes are read off
the weights, and of AST off the config.json beside them. What neither tells is taken as published
(heads 64 wide, the stride that AST's positions are for, MBT's fusion from layer 8); --set says
otherwise.
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt convert`."""
    cli = parser("convert", "Turn released weights into a folder of our own.", EPILOG)
    cli.add_argument("kind", help="uniformer, ast, vit or mbt")
    cli.add_argument(
        "--source",
        required=True,
        type=Path,
        metavar="FILE",
        help="published file, index of several, or folder of Hugging Face",
    )
    cli.add_argument("--out", required=True, type=Path, metavar="DIR", help="new folder")
    cli.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field of the model's config that the weights do not tell, such as stride=16",
    )
    cli.add_argument(
        "--mel-bins",
        type=int,
        metavar="N",
        help="ast: mel bins of the weights (default: as config.json beside them says, or 128)",
    )
    cli.add_argument(
        "--weights",
        choices=("model", "ema"),
        help="of a file that has both: as trained, or averaged (default: as trained)",
    )
    return cli


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    args = build_parser().parse_args(sys.argv[1:] if argv is None else argv)
    if args.mel_bins is not None and args.mel_bins < 1:
        raise UserError(f"--mel-bins {args.mel_bins}: give 1 or more.")
    from avt_jax.conversion import check_kind
    from avt_jax.conversion.released import convert_released
    from avt_jax.host.new_folder import check_new_folder
    from avt_jax.tree import parameter_count

    check_kind(args.kind)
    check_new_folder(args.out)
    done = convert_released(
        args.kind,
        args.source,
        args.out,
        changes=dict(map(_field, args.set)),
        mel_bins=args.mel_bins,
        weights=args.weights,
        say=show,
    )
    show(
        f"{done.num_read} arrays read, {parameter_count(done.skeleton.params):,} parameters in "
        f"{len(done.converted.variables)} arrays written to {args.out}"
    )
    show("config: " + ", ".join(f"{name}={value}" for name, value in done.converted.config.items()))
    if done.converted.left_out:
        show(f"left out, having no use here: {', '.join(done.converted.left_out)}")
    return 0


def _field(word: str) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not equals:
        raise UserError(f"--set {word}: write it as FIELD=VALUE, such as --set stride=16.")
    try:
        return name, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return name, text


if __name__ == "__main__":
    sys.exit(run(main))
