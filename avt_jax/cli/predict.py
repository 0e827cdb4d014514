"""`avt predict`: classifies raw video files with a trained model."""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avt_jax.cli.common import parser, run
from avt_jax.errors import UserError

if TYPE_CHECKING:
    from avt_jax.inference import FilePrediction, Predictor

EPILOG = """\
Each file is cut into windows as long as the run's clips; the table shows the mean of their
probabilities, and for a longer file what comes first at which time. A picture of each (frames,
spectrogram, probabilities over time) goes to predictions/.

  avt predict --checkpoint runs/quickstart/av video.mp4
  avt predict --checkpoint runs/quickstart/av --json *.mp4 > predictions.json

A file that cannot be decoded is named on stderr and the others are still classified; the exit
code is then 2.
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt predict`."""
    cli = parser("predict", "Classify video files with a trained model.", EPILOG)
    cli.add_argument("files", nargs="+", metavar="FILE", help="video, with or without sound")
    cli.add_argument(
        "--checkpoint", required=True, type=Path, metavar="RUN_DIR", help="folder of a trained run"
    )
    cli.add_argument(
        "--step",
        choices=("best", "last"),
        default="best",
        help="checkpoint with the best validation score, or the last one (default %(default)s)",
    )
    cli.add_argument(
        "--top", type=int, default=5, metavar="N", help="classes to show (default %(default)s)"
    )
    cli.add_argument(
        "--hop-sec",
        type=float,
        metavar="S",
        help="seconds from one window to the next (default: the length of a window)",
    )
    cli.add_argument(
        "--batch-size", type=int, metavar="N", help="windows at once (default: 1 on a CPU, else 8)"
    )
    cli.add_argument(
        "--json", action="store_true", help="print one JSON document instead of tables"
    )
    cli.add_argument(
        "--out",
        type=Path,
        default=Path("predictions"),
        metavar="DIR",
        help="folder for the pictures (default ./%(default)s)",
    )
    cli.add_argument("--no-picture", action="store_true", help="draw nothing")
    return cli


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code: 2 when a file could not be classified.

    Raises:
      UserError: a bad option, or the run cannot be loaded.
    """
    args = build_parser().parse_args(argv)
    _check(args)
    from avt_jax.inference import Predictor

    predictor = Predictor(
        args.checkpoint,
        step=args.step,
        batch_size=args.batch_size,
        say=functools.partial(print, file=sys.stderr, flush=True),
    )
    document: dict[str, Any] = {
        "run": str(args.checkpoint),
        "step": predictor.run.step,
        "files": [],
        "failed": [],
    }
    taken: set[str] = set()
    for file in args.files:
        try:
            prediction = _predict(predictor, file, args.hop_sec)
            picture = None if args.no_picture else _draw(prediction, args, taken)
        except UserError as error:
            print(f"avt: error: {error}", file=sys.stderr)
            document["failed"].append({"path": file, "error": str(error)})
            continue
        if args.json:
            shown = {"picture": picture and str(picture)}
            document["files"].append(prediction.to_dict(args.top) | shown)
        else:
            _show(prediction, args.top, picture)
    if args.json:
        print(json.dumps(document, indent=1, allow_nan=False))
    return 2 if document["failed"] else 0


def _check(args: argparse.Namespace) -> None:
    if args.top < 1:
        raise UserError(f"--top {args.top}: give 1 or more.")
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: give 1 or more.")
    if args.hop_sec is not None and not (args.hop_sec > 0 and math.isfinite(args.hop_sec)):
        raise UserError(f"--hop-sec {args.hop_sec:g}: give a positive number of seconds.")
    if not args.no_picture:
        try:
            args.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {args.out}: {error.strerror}; give another folder.") from error


def _predict(predictor: Predictor, file: str, hop_sec: float | None) -> FilePrediction:
    from tqdm import tqdm

    with tqdm(desc=Path(file).name, unit="window", disable=None, leave=False) as bar:

        def on_window(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return predictor.predict_file(file, hop_sec=hop_sec, on_window=on_window)


def _draw(prediction: FilePrediction, args: argparse.Namespace, taken: set[str]) -> Path:
    from avt_jax.inference.timeline import draw_timeline

    # Two files of the same name in different folders get a picture each.
    stem, number = Path(prediction.path).stem, 1
    name = stem
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    picture = args.out / f"{name}.png"
    draw_timeline(prediction, picture, number=min(args.top, 10))
    return picture


def _show(prediction: FilePrediction, top: int, picture: Path | None) -> None:
    from rich.console import Console

    from avt_jax.inference.report import file_table, heading, window_table

    console = Console()
    console.print(heading(prediction), soft_wrap=True)
    console.print(file_table(prediction, top))
    if windows := window_table(prediction):
        console.print(windows)
    if picture:
        console.print(f"picture: {picture}", markup=False, highlight=False, soft_wrap=True)
    console.print()


if __name__ == "__main__":
    sys.exit(run(main))
