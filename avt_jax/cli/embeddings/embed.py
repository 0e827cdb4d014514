"""`avt embed`: vectors of clips and files in one Parquet or npz file."""

from __future__ import annotations

import argparse
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avt_jax.cli import interrupts
from avt_jax.cli.common import add_step, parser, run
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import printable, show

if TYPE_CHECKING:
    from avt_jax.inference import Predictor
    from avt_jax.inference.embeddings.vectors import Rows

EPILOG = """\
  avt embed shards --checkpoint runs/mine --out index.parquet
  avt embed footage/ 'more/**/*.mp4' --checkpoint runs/mine --out index.npz
  avt search index.parquet query.mp4

A row is a clip of the shards, with its labels, or a window of a file. The columns "video", "audio"
and "fused" are vectors of length 1: video and audio those that the contrastive term compares, where
the model has its projections. docs/embeddings.md has the others.

The index appears when it is complete: after an interruption there is none. A file that cannot be
embedded does not keep the others from it; the exit code is then 2.
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt embed`."""
    cli = parser("embed", "Vectors of clips and files, for search and clustering.", EPILOG)
    cli.add_argument(
        "inputs",
        nargs="+",
        metavar="SHARDS|FILE",
        help="a shard folder; or video and sound files, folders of them, patterns in quotes",
    )
    cli.add_argument(
        "--checkpoint", required=True, type=Path, metavar="RUN_DIR", help="folder of a trained run"
    )
    cli.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="new .parquet or .npz file"
    )
    add_step(cli)
    cli.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME",
        help="of the shards, may be given again (default: all)",
    )
    cli.add_argument(
        "--hop-sec",
        type=float,
        metavar="S",
        help="files: seconds from one window to the next (default: the length of a window)",
    )
    cli.add_argument(
        "--batch-size", type=int, metavar="N", help="clips at once (default: 1 on a CPU, else 8)"
    )
    return cli


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code: 2 when a file could not be embedded.

    Raises:
      UserError: a bad option, nothing to embed, the run cannot be loaded, or the index cannot be
        written.
    """
    args = build_parser().parse_args(argv)
    check_numbers(args.hop_sec, args.batch_size)
    from avt_jax.inference.embeddings.shards import is_shards
    from avt_jax.inference.embeddings.writer import check_index

    check_index(args.out)
    if any(map(is_shards, args.inputs)):
        return _of_shards(args)
    if args.split:
        raise UserError(f"--split {args.split[0]} is for a shard folder; leave it out.")
    return _of_files(args)


def check_numbers(hop_sec: float | None, batch_size: int | None) -> None:
    """Raises UserError for options that are no positive numbers."""
    if hop_sec is not None and not (hop_sec > 0 and math.isfinite(hop_sec)):
        raise UserError(f"--hop-sec {hop_sec:g}: give a positive number of seconds.")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: give 1 or more.")


def _load(args: argparse.Namespace) -> Predictor:
    from avt_jax.inference import Predictor

    return Predictor(
        args.checkpoint,
        step=args.step,
        batch_size=args.batch_size,
        say=functools.partial(show, file=sys.stderr, flush=True),
    )


def _of_shards(args: argparse.Namespace) -> int:
    if len(args.inputs) > 1:
        raise UserError("give one shard folder, or files; each shard folder gets its own index.")
    if args.hop_sec is not None:
        raise UserError("--hop-sec is for files; a clip of the shards is one row.")
    from avt_jax.data import records
    from avt_jax.inference.embeddings.shards import embed_shards, splits_of

    [path] = args.inputs
    info = records.read_info(path)
    splits = splits_of(info, args.split, path)
    predictor = _load(args)
    rows = embed_shards(predictor.model, path, splits, predictor.batch_size)
    count = sum(info.splits[name] for name in splits)
    _write(args, predictor, rows, count, "clip", tuple(info.label_sets), len)
    return 0


def _of_files(args: argparse.Namespace) -> int:
    from avt_jax.inference.find_files import find_files

    files = find_files(args.inputs)
    predictor = _load(args)
    failed: list[str] = []
    rows = file_rows(predictor, files, args.hop_sec, failed)
    _write(args, predictor, rows, len(files), "file", (), lambda rows: 1)
    if failed:
        show(
            f"avt: {len(failed)} of {len(files)} files could not be embedded; the errors above "
            "say why",
            file=sys.stderr,
        )
    return 2 if failed else 0


def file_rows(
    predictor: Predictor, files: Sequence[str], hop_sec: float | None, failed: list[str]
) -> Iterator[Rows]:
    """The rows of files, one after another; what is wrong with one is printed and noted."""
    from avt_jax.data.extraction.extract import CLIP_TIMEOUT_SEC
    from avt_jax.host.worker_pool import default_num_workers
    from avt_jax.inference.embeddings.vectors import rows_of

    workers = min(len(files), default_num_workers()) if len(files) > 1 else 0
    found = predictor.embed_files(
        files,
        hop_sec=hop_sec,
        num_workers=workers,
        time_limit_sec=CLIP_TIMEOUT_SEC if workers else None,
    )
    for path, one in found:
        try:
            if isinstance(one, UserError):
                raise one
            yield rows_of(one)
        except UserError as error:
            failed.append(path)
            show(printable(f"avt: error: {error}"), file=sys.stderr)


def _write(
    args: argparse.Namespace,
    predictor: Predictor,
    found: Iterator[Rows],
    total: int,
    unit: str,
    label_sets: tuple[str, ...],
    progress: Callable[[Rows], int],
) -> None:
    """Writes all rows, with a progress bar, and says what was written."""
    from avt_jax.host.progress import progress_bar
    from avt_jax.inference.embeddings.vectors import about_run
    from avt_jax.inference.embeddings.writer import new_index

    about = about_run(
        predictor.run,
        args.checkpoint,
        projects=predictor.model.projects,
        label_sets=label_sets,
    )
    begun = time.monotonic()
    with (
        new_index(args.out, about) as index,
        progress_bar(total, "embedding", unit, smoothing=0.1) as bar,
    ):
        for rows in found:
            index.add(rows)
            # The model is compiled: from here on Ctrl-C is heard at once, and nothing is left.
            interrupts.raise_again()
            bar.update(progress(rows))
    seconds = time.monotonic() - begun
    widths = ", ".join(f"{name} {vector.shape[1]}" for name, vector in rows.vectors.items())
    show(f"{args.out}: {index.count} rows ({widths}; {about.kind}); {seconds:.1f} s")


if __name__ == "__main__":
    sys.exit(run(main))
