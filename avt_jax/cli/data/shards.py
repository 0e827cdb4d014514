"""`avt shards`: checks, merges, divides anew and measures shard folders."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avt_jax.cli import common
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import printable, show

if TYPE_CHECKING:
    from avt_jax.data.shard_tools.rewrite import RewriteSummary

_WORKERS = "processes that read; 0: none but this one (default: one per core)"


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = common.parser(
        "shards", "Check, merge, divide anew or measure shard folders (or the URLs of copies)."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add_action(name: str, text: str, epilog: str | None = None) -> Callable[..., Any]:
        return actions.add_parser(
            name,
            help=text[0].lower() + text[1:].rstrip("."),
            description=text,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        ).add_argument

    add = add_action(
        "verify",
        "Read everything in a shard folder again and name what is damaged.",
        "Exit code 0: nothing is damaged, 1: something is, 2: the folder cannot be looked at.",
    )
    add("shards", help="shard folder")
    add("--quick", action="store_true", help="compare checksums only")
    add("--workers", type=int, default=None, help=_WORKERS)

    _add_merge(add_action("merge", "Write the clips of several shard folders into a new one."))

    add = add_action("reshard", "Write a shard folder again with shards of another size.")
    add("shards", help="shard folder")
    add("out", help="folder to create")
    _add_sizes(add)
    add(
        "--drop-damaged",
        action="store_true",
        help="look at every record as 'verify' does, name the damaged ones and leave them out",
    )
    add("--workers", type=int, default=None, help=f"with --drop-damaged: {_WORKERS}")

    add = add_action(
        "stats",
        "Print mean and standard deviation of sound and pictures, as options for 'avt train'.",
    )
    add("shards", help="shard folder")
    add("--split", default="train", help="split to read (%(default)s)")
    add("--out", default=None, metavar="FILE", help="write the numbers as JSON, too")
    add("--max-clips", type=int, default=None, help="read so many, evenly spread (default: all)")
    add("--workers", type=int, default=None, help=_WORKERS)
    return parser


def _add_merge(add: Callable[..., Any]) -> None:
    add("out", help="folder to create")
    add("shards", nargs="+", metavar="DIR", help="two or more shard folders, in this order")
    add(
        "--union-classes",
        action="store_true",
        help="allow class lists that differ: those of the first folder, then what others add",
    )
    add(
        "--prefix-ids",
        action="store_true",
        help="put the folder's name before ids and sources, where folders use the same ones for "
        "different videos",
    )
    _add_sizes(add)


def _add_sizes(add: Callable[..., Any]) -> None:
    add("--max-shard-mb", type=float, default=256.0, help="size of a shard in MiB (%(default)s)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      argv: arguments without the command's name; None takes them from the command line.

    Returns:
      0, or 1 where `verify` found damage.

    Raises:
      UserError: a mistake in the options, or a folder that cannot be used.
    """
    args = build_parser().parse_args(argv)
    splits = (args.split,) if args.action == "stats" else None
    if args.action == "merge":
        args.shards = [_local(folder, splits) for folder in args.shards]
    else:
        args.shards = _local(args.shards, splits)
    action = {"verify": _verify, "merge": _merge, "reshard": _reshard, "stats": _stats}
    return action[args.action](args)


def _local(folder: str, splits: tuple[str, ...] | None) -> str:
    """The folder to read: one behind a URL is copied to this machine first."""
    from avt_jax.data.records import remote

    return os.fspath(remote.local_folder(folder, splits)) if remote.is_remote(folder) else folder


def _verify(args: argparse.Namespace) -> int:
    import tqdm

    from avt_jax.data.shard_tools.verify import Problem, verify_folder

    def say(problem: Problem) -> None:
        # Printed when found, above the progress bar: the rest may take hours.
        with tqdm.tqdm.external_write_mode(file=sys.stdout):
            show(printable(f"damaged: {problem}"), flush=True)

    report = verify_folder(args.shards, num_workers=args.workers, quick=args.quick, on_problem=say)
    num_bad = len({(p.file, p.index) for p in report.problems if p.index is not None})
    num_files = len({p.file for p in report.problems if p.index is None})
    rate = report.num_records / max(report.elapsed_sec, 1e-9)
    looked = f"{report.num_records} records, " if not args.quick else "checksums only, "
    show(
        f"{args.shards}: {report.num_shards} shards, {looked}{report.num_bytes / 1e6:.1f} MB, "
        f"schema {report.info.schema_version}, {report.elapsed_sec:.1f} s"
        + (f" ({rate:.1f} clips/s)" if not args.quick else "")
    )
    if not report.problems:
        show("nothing is damaged")
        return 0
    show(f"damaged: {num_files} files, {num_bad} records")
    return 1


def _merge(args: argparse.Namespace) -> int:
    from avt_jax.data.shard_tools import rewrite

    summary = rewrite.merge(
        args.out,
        args.shards,
        union_classes=args.union_classes,
        prefix_ids=args.prefix_ids,
        max_shard_mb=args.max_shard_mb,
    )
    _print_rewritten(summary, args.out)
    return 0


def _reshard(args: argparse.Namespace) -> int:
    from avt_jax.data.shard_tools import rewrite

    summary = rewrite.reshard(
        args.shards,
        args.out,
        max_shard_mb=args.max_shard_mb,
        drop_damaged=args.drop_damaged,
        num_workers=args.workers,
        on_dropped=lambda problem: show(printable(f"left out: {problem}"), flush=True),
    )
    _print_rewritten(summary, args.out)
    return 0


def _print_rewritten(summary: RewriteSummary, out: str) -> None:
    splits = ", ".join(f"{split} {count}" for split, count in summary.num_clips.items())
    dropped = f", {summary.num_dropped} damaged ones left out" if summary.num_dropped else ""
    total = sum(summary.num_clips.values())
    show(
        f"{out}: {total} clips ({splits}){dropped}, {summary.num_bytes / 1e6:.1f} MB, "
        f"{summary.elapsed_sec:.1f} s ({total / max(summary.elapsed_sec, 1e-9):.1f} clips/s)"
    )


def _stats(args: argparse.Namespace) -> int:
    from avt_jax.data.shard_tools.stats import measure_split
    from avt_jax.host.new_files import write_json

    if args.out and not Path(args.out).absolute().parent.is_dir():
        raise UserError(f"the folder of --out {args.out} does not exist; create it first.")
    stats = measure_split(
        args.shards, args.split, num_workers=args.workers, max_clips=args.max_clips
    )
    show(
        f"{args.split} of {args.shards}: {stats.num_clips} clips, {stats.num_frames} frames, "
        f"{stats.num_with_audio} clips with sound of {stats.num_fbank_rows / 100:.1f} s"
    )
    show(stats.overrides())
    if args.out:
        write_json(Path(args.out), dataclasses.asdict(stats))
        show(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(common.run(main))
