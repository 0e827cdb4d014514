"""`avt search`: the clips of an index that are most like a file."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avt_jax.cli.common import add_step, parser, run
from avt_jax.cli.embeddings.embed import check_numbers, file_rows
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import show

if TYPE_CHECKING:
    from avt_jax.inference.embeddings.query import Found, Query
    from avt_jax.inference.embeddings.reader import Index

EPILOG = """\
  avt search index.parquet query.mp4
  avt search index.parquet songs/ --by audio-video --top 3     # the pictures that suit a sound
  avt search index.parquet other.npz --json                    # the rows of another index

A query is a file, by the mean of its windows' vectors, or a row of another index of the same run.
--by says which of its vectors is compared with which of the index: av is the fused one. Cosines are
exact: those of float64, the best first; of equal ones the row that comes first.

The run that made the index embeds the files; --checkpoint says where it lies now.
"""
BY = ("av-av", "video-video", "audio-audio", "audio-video", "video-audio")


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt search`."""
    cli = parser("search", "Find the clips of an index that are most like a file.", EPILOG)
    cli.add_argument("index", type=Path, metavar="INDEX", help="what 'avt embed' wrote")
    cli.add_argument(
        "queries",
        nargs="+",
        metavar="QUERY",
        help="video or sound file, a folder of them, a pattern in quotes; or one index",
    )
    cli.add_argument(
        "--by",
        choices=BY,
        help="vector of the query, and of the index (default: av-av where there is one)",
    )
    cli.add_argument(
        "--top", type=int, default=10, metavar="N", help="rows to show (default %(default)s)"
    )
    cli.add_argument(
        "--checkpoint", type=Path, metavar="RUN_DIR", help="the run (default: as the index says)"
    )
    add_step(cli)
    cli.add_argument("--hop-sec", type=float, metavar="S", help="as for 'avt embed'")
    cli.add_argument("--batch-size", type=int, metavar="N", help="as for 'avt embed'")
    cli.add_argument("--json", action="store_true", help="print one JSON document")
    return cli


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code: 2 when a query could not be embedded.

    Raises:
      UserError: a bad option, a damaged index, one of another checkpoint, or nothing to search.
    """
    args = build_parser().parse_args(argv)
    check_numbers(args.hop_sec, args.batch_size)
    if args.top < 1:
        raise UserError(f"--top {args.top}: give 1 or more.")
    from avt_jax.inference.embeddings.query import choose, compared, search
    from avt_jax.inference.embeddings.reader import read_index

    index = read_index(args.index)
    by = choose(index, args.by)
    if (warning := compared(index, by)) is not None:
        show(f"avt: {warning}", file=sys.stderr)
    failed: list[str] = []
    queries = _queries(args, index, by[0], failed)
    if not queries:
        raise UserError("no query has what --by compares; the errors above say why.")
    found = search(index, queries, by[1], args.top)
    if args.json:
        document: dict[str, Any] = {"index": str(args.index), "by": "-".join(by)}
        document |= {"failed": failed, "queries": [_as_json(index, one) for one in found]}
        show(json.dumps(document, indent=1, allow_nan=False))
    else:
        for one in found:
            _show(index, one)
    return 2 if failed else 0


def _queries(args: argparse.Namespace, index: Index, name: str, failed: list[str]) -> list[Query]:
    from avt_jax.inference.embeddings import query
    from avt_jax.inference.embeddings.reader import SUFFIXES, read_index

    indices = [word for word in args.queries if Path(word).suffix.lower() in SUFFIXES]
    if indices:
        if len(args.queries) > 1:
            raise UserError("give one index as the query, or files.")
        other = read_index(Path(indices[0]))
        query.check_weights(index, other.about.weights, str(other.path))
        return query.of_index(other, name)
    from avt_jax.inference import Predictor
    from avt_jax.inference.embeddings.vectors import weights_checksum
    from avt_jax.inference.find_files import find_files

    files = find_files(args.queries)
    run_dir = args.checkpoint or Path(index.about.run)
    try:
        predictor = Predictor(
            run_dir,
            step=args.step,
            batch_size=args.batch_size,
            say=functools.partial(show, file=sys.stderr, flush=True),
        )
    except UserError as error:
        if args.checkpoint:
            raise
        raise UserError(f"{error} The index names this run; --checkpoint says another.") from error
    query.check_weights(index, weights_checksum(predictor.run), str(run_dir))
    found = []
    for rows in file_rows(predictor, files, args.hop_sec, failed):
        try:
            found.append(query.of_file(rows, name))
        except UserError as error:
            failed.append(rows.text["id"][0])
            show(f"avt: error: {error}", file=sys.stderr)
    return found


def _as_json(index: Index, one: Found) -> dict[str, Any]:
    rows = []
    for row, cosine in zip(one.rows, one.cosines, strict=True):
        entry: dict[str, Any] = {"row": int(row), "cosine": float(cosine)}
        entry |= {name: column[row] for name, column in index.rows.text.items()}
        entry |= {name: float(getattr(index.rows, name)[row]) for name in ("start_sec", "end_sec")}
        entry["labels"] = {name: column[row] for name, column in index.rows.labels.items()}
        rows.append(entry)
    return {"query": one.name, "found": rows}


def _show(index: Index, one: Found) -> None:
    from avt_jax.host.output.tables import PlainTable, new_console
    from avt_jax.inference.timeline import clock

    labels = list(index.rows.labels)
    columns = ["", "cosine", "clip", "from", "to", *labels]
    table = PlainTable(one.name, *columns, left=(2, *range(5, len(columns))))
    for rank, (row, cosine) in enumerate(zip(one.rows, one.cosines, strict=True), 1):
        span = (clock(index.rows.start_sec[row]), clock(index.rows.end_sec[row]))
        names = [index.rows.labels[name][row] for name in labels]
        table.row(str(rank), f"{cosine:.4f}", index.rows.text["id"][row], *span, *names)
    new_console().print(table)


if __name__ == "__main__":
    sys.exit(run(main))
