"""`avt convert`: released weights into a folder that a training can start from."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import sys
from pathlib import Path
from typing import Any

from avt_jax.cli.common import parser, run
from avt_jax.errors import UserError, nearest
from avt_jax.host.output.terminal import show

EPILOG = """\
kinds and the files they are published as:

  uniformer   .pth: Kinetics weights of the video model, or ImageNet weights (inflated in time)
  ast         .pth of the authors or of DeiT; .safetensors of Hugging Face
  vit         .npz (augreg)
  mbt         Flax checkpoint (msgpack)

  avt convert uniformer --source uniformer_small_k400_16x4.pth --out weights/uniformer
  avt convert ast --source model.safetensors --out weights/ast
  avt train --config kinetics_sounds --workdir runs/ks --config.data.path=shards \\
      --config.init.video=weights/uniformer --config.init.audio=weights/ast

.pth files need PyTorch: pip install 'avt_jax[convert]'. No code in them is run. Sizes are read off
the weights. What cannot be is taken as published (heads 64 wide, AST's stride 10, MBT's fusion from
layer 8); --set says otherwise.
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt convert`."""
    cli = parser("convert", "Turn released weights into a folder of our own.", EPILOG)
    cli.add_argument("kind", help="uniformer, ast, vit or mbt")
    cli.add_argument("--source", required=True, type=Path, metavar="FILE", help="published file")
    cli.add_argument("--out", required=True, type=Path, metavar="DIR", help="new folder")
    cli.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field of the model's config that the weights do not tell, such as stride=16",
    )
    cli.add_argument(
        "--mel-bins", type=int, default=128, help="ast: mel bins of the weights (default: 128)"
    )
    return cli


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    args = build_parser().parse_args(sys.argv[1:] if argv is None else argv)
    from avt_jax.conversion import KINDS, check_kind, convert, infer_config
    from avt_jax.conversion.sources import read_state_dict
    from avt_jax.conversion.store import Converted, write_converted
    from avt_jax.host.checksum import sha256_of
    from avt_jax.host.new_folder import check_new_folder
    from avt_jax.tree import parameter_count

    check_kind(args.kind)
    check_new_folder(args.out)
    changes = dict(map(_field, args.set))
    state_dict = read_state_dict(args.kind, args.source)
    try:
        config = _replaced(infer_config(args.kind, state_dict), changes)
        skeleton, variables, left_out = convert(args.kind, state_dict, config, dtype="float32")
        grid = KINDS[args.kind].grid(config, state_dict, args.mel_bins)
    except UserError as error:
        raise UserError(f"{args.source}: {error}") from error
    source = {"file": args.source.name, "sha256": sha256_of(args.source)}
    fields = dataclasses.asdict(config)
    write_converted(
        args.out, Converted(args.kind, fields, grid, variables, source, sorted(left_out))
    )
    show(
        f"{len(state_dict)} arrays read, {parameter_count(skeleton.params):,} parameters in "
        f"{len(variables)} arrays written to {args.out}"
    )
    show("config: " + ", ".join(f"{name}={value}" for name, value in fields.items()))
    if left_out:
        show(f"left out, having no use here: {', '.join(sorted(left_out))}")
    return 0


def _field(word: str) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not equals:
        raise UserError(f"--set {word}: write it as FIELD=VALUE, such as --set stride=16.")
    try:
        return name, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return name, text


def _replaced(config: Any, changes: dict[str, Any]) -> Any:
    known = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for name, value in changes.items():
        if name not in known:
            raise UserError(
                f"--set {name}={value} is no field{nearest(name, known)}; "
                f"the fields are {', '.join(known)}."
            )
        number = isinstance(known[name], int | float) and isinstance(value, int | float)
        if not number and type(value) is not type(known[name]) and name != "stride":
            raise UserError(
                f"--set {name}={value}: give a value like the one that was found, {known[name]!r}."
            )
    return dataclasses.replace(config, **changes)


if __name__ == "__main__":
    sys.exit(run(main))
