"""`avt embed`: vectors of clips and files in one Parquet or npz file."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avt_jax.cli import interrupts
from avt_jax.cli.common import add_run, parser, run
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import printable, show

if TYPE_CHECKING:
    from avt_jax.inference import Predictor
    from avt_jax.inference.embeddings.vectors import About, Rows
    from avt_jax.inference.results import Results

EPILOG = """\
  avt embed shards --checkpoint runs/mine --out index.parquet
  avt embed footage/ 'more/**/*.mp4' --checkpoint runs/mine --out index.npz
  avt search index.parquet query.mp4

A row is a clip of the shards, with its labels, or a window of a file. The columns "video", "audio"
and "fused" are vectors of length 1: video and audio those that the contrastive term compares, where
the model has its projections. docs/embeddings.md has the others.

The index appears when it is complete. After an interruption the same command goes on: until then
what is done is in index.parquet.part. A file that cannot be embedded does not keep the others from
it; the exit code is then 2.
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
    add_run(cli)
    cli.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="new .parquet or .npz file"
    )
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
    from avt_jax.inference.embeddings.shards import clip_key, embed_shards, splits_of

    [path] = args.inputs
    info = records.read_info(path)
    splits = splits_of(info, args.split, path)
    predictor = _load(args)
    keys = [clip_key(name, number) for name in splits for number in range(info.splits[name])]

    def embed(done: Mapping[str, bool]) -> Iterator[tuple[str, Rows]]:
        return embed_shards(predictor.model, path, splits, predictor.batch_size, done)

    # The journal of one shard folder is no beginning of another's index.
    options = {"shards": path if "://" in path else os.path.abspath(path)}
    _write(args, predictor, _Work("clip", keys, embed, options, tuple(info.label_sets)))
    return 0


def _of_files(args: argparse.Namespace) -> int:
    from avt_jax.inference.find_files import find_files
    from avt_jax.inference.results import key

    files = find_files(args.inputs)
    predictor = _load(args)

    def embed(done: Mapping[str, bool]) -> Iterator[tuple[str, Rows | UserError]]:
        return file_rows(predictor, [file for file in files if key(file) not in done], args.hop_sec)

    hop_sec = predictor.clip_sec if args.hop_sec is None else args.hop_sec
    options = {"--hop-sec": hop_sec, "window_sec": predictor.clip_sec}
    num_failed = _write(
        args, predictor, _Work("file", [key(file) for file in files], embed, options)
    )
    if num_failed:
        show(
            f"avt: {num_failed} of {len(files)} files could not be embedded; the errors above "
            "say why",
            file=sys.stderr,
        )
    return 2 if num_failed else 0


def file_rows(
    predictor: Predictor, files: Sequence[str], hop_sec: float | None
) -> Iterator[tuple[str, Rows | UserError]]:
    """(file, its rows or why there are none), one after another; the latter is printed, too."""
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
            yield path, rows_of(one)
        except UserError as error:
            show(printable(f"avt: error: {error}"), file=sys.stderr)
            yield path, error


@dataclasses.dataclass(frozen=True)
class _Work:
    """What is to be embedded.

    Attributes:
      unit: what one of them is called.
      keys: of all.
      embed: those that are done, by key -> (name, rows or why there are none) of the others.
      options: that rows depend on.
      label_sets: that have a column.
    """

    unit: str
    keys: Sequence[str]
    embed: Callable[[Mapping[str, bool]], Iterator[tuple[str, Any]]]
    options: Mapping[str, Any]
    label_sets: tuple[str, ...] = ()


def _write(args: argparse.Namespace, predictor: Predictor, work: _Work) -> int:
    """Makes the index by way of its journal; returns how many could not be embedded."""
    from avt_jax.inference.embeddings.journal import Journal, place_of
    from avt_jax.inference.embeddings.vectors import about_run
    from avt_jax.inference.results import continued

    projects = predictor.model.projects
    about = about_run(predictor.run, args.checkpoint, projects=projects, label_sets=work.label_sets)
    journal, place = Journal(about, work.options), place_of(args.out)
    begun = time.monotonic()
    # What failed is tried again.
    with continued(place, journal, "avt embed", again=work.keys) as results:
        before = sum(one in results.failed for one in work.keys)
        try:
            _embed_all(results, work, before)
        except KeyboardInterrupt:
            count = sum(one in results.failed for one in work.keys)
            said = f"{count} of {len(work.keys)} {work.unit}s are in {place}"
            show(f"avt: {said}; the same command goes on", file=sys.stderr)
            raise
        num_failed = sum(results.failed[one] for one in work.keys)
        said = _to_index(args.out, about, journal.rows(place, work.keys), place)
        place.unlink()
    earlier = f", {before} {work.unit}s done before" if before else ""
    show(f"{args.out}: {said}{earlier}; {time.monotonic() - begun:.1f} s")
    return num_failed


def _embed_all(results: Results, work: _Work, before: int) -> None:
    from avt_jax.host.progress import progress_bar

    if before == len(work.keys):
        return
    with progress_bar(len(work.keys), "embedding", work.unit, initial=before, smoothing=0.1) as bar:
        for name, found in work.embed(results.failed):
            results.add(name, found if isinstance(found, UserError) else (name, found))
            # The model is compiled: from here on Ctrl-C is heard at once.
            interrupts.raise_again()
            bar.update()


def _to_index(out: Path, about: About, rows: Iterator[Rows], place: Path) -> str:
    """Writes the index; returns what is in it."""
    from avt_jax.inference.embeddings.writer import new_index
    from avt_jax.inference.result_formats import NotOursError

    widths = ""
    try:
        with new_index(out, about) as index:
            for some in rows:
                index.add(some)
                widths = ", ".join(f"{name} {v.shape[1]}" for name, v in some.vectors.items())
    except NotOursError as error:
        raise UserError(f"{place} is damaged ({error}); delete it and begin anew.") from error
    except UserError:
        if not widths:
            place.unlink(missing_ok=True)  # all failed, and is tried again anyway
        raise
    return f"{index.count} rows ({widths}; {about.kind})"


if __name__ == "__main__":
    sys.exit(run(main))
