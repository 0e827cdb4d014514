"""`avt predict`: classifies raw video and sound files with a trained model."""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avt_jax.cli import interrupts
from avt_jax.cli.common import add_step, parser, run
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import printable, show

if TYPE_CHECKING:
    from avt_jax.inference import FilePrediction, Predictor
    from avt_jax.inference.results import Results

EPILOG = """\
Each file is cut into windows as long as the run's clips; the table shows the mean of their
probabilities, and for a longer file what comes first at which time. A picture of each (frames,
spectrogram, probabilities over time) goes to predictions/.

  avt predict --checkpoint runs/quickstart/av video.mp4
  avt predict --checkpoint runs/quickstart/av --json a.mp4 b.wav > predictions.json

Many files: a folder stands for all video and sound files below it, a pattern in quotes for what it
matches. --out writes the results to one file as they come, without tables or pictures:

  avt predict --checkpoint runs/quickstart/av footage/ 'more/**/*.mp4' --out results.csv

results.jsonl has the windows, too, one JSON object a line; its first line says what made it. The
same command goes on after an interruption with the files that are not in the results yet. A file
that cannot be decoded is in them with its "error"; --retry-failed tries such files again.

Sound files (.wav .mp3 .flac .ogg .m4a .opus .aac) are classified by their sound; a model of both
modalities sees a blank picture, and one of pictures alone refuses them.

A file that cannot be classified does not keep the others from it; the exit code is then 2.
"""
_PICTURES = Path("predictions")


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt predict`."""
    cli = parser("predict", "Classify video and sound files with a trained model.", EPILOG)
    cli.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="video or sound file, a folder of them, or a pattern in quotes",
    )
    cli.add_argument(
        "--checkpoint", required=True, type=Path, metavar="RUN_DIR", help="folder of a trained run"
    )
    add_step(cli)
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
        "--out",
        type=Path,
        metavar="FILE",
        help="write the results to this .jsonl or .csv file, or go on with it",
    )
    cli.add_argument(
        "--retry-failed",
        action="store_true",
        help="try the files again that have an error in --out",
    )
    cli.add_argument(
        "--json", action="store_true", help="print one JSON document instead of tables"
    )
    cli.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help=f"folder for the pictures (default ./{_PICTURES}; with --out none are drawn)",
    )
    cli.add_argument("--no-picture", action="store_true", help="draw nothing")
    return cli


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code: 2 when a file could not be classified.

    Raises:
      UserError: a bad option, nothing to classify, the run cannot be loaded, or results cannot be
        written.
    """
    args = build_parser().parse_args(argv)
    if args.pictures is None and not (args.out or args.no_picture):
        args.pictures = _PICTURES
    _check(args)
    from avt_jax.inference.find_files import find_files

    files = find_files(args.files)
    if args.pictures:
        _make_folder(args.pictures)
    from avt_jax.inference import Predictor

    predictor = Predictor(
        args.checkpoint,
        step=args.step,
        batch_size=args.batch_size,
        say=functools.partial(show, file=sys.stderr, flush=True),
    )
    num_failed, where = (_write if args.out else _print)(predictor, files, args)
    if num_failed and (args.out or len(files) > 1):
        show(
            f"avt: {num_failed} of {len(files)} files could not be classified; {where}",
            file=sys.stderr,
        )
    return 2 if num_failed else 0


def _check(args: argparse.Namespace) -> None:
    if args.top < 1:
        raise UserError(f"--top {args.top}: give 1 or more.")
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: give 1 or more.")
    if args.hop_sec is not None and not (args.hop_sec > 0 and math.isfinite(args.hop_sec)):
        raise UserError(f"--hop-sec {args.hop_sec:g}: give a positive number of seconds.")
    if args.pictures and args.no_picture:
        raise UserError("--pictures and --no-picture exclude each other; leave one out.")
    if args.out is None:
        if args.retry_failed:
            raise UserError("--retry-failed is for the results of --out; name their file there.")
        return
    from avt_jax.inference.results import check_file

    check_file(args.out)
    if args.json:
        raise UserError("--json prints what --out writes; leave one out.")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--pictures {folder}: {error.strerror}; give another folder.") from error


def _print(predictor: Predictor, files: Sequence[str], args: argparse.Namespace) -> tuple[int, str]:
    """Shows file after file; returns how many failed, and where that is said."""
    document: dict[str, Any] = {
        "run": str(args.checkpoint),
        "step": predictor.run.step,
        "files": [],
        "failed": [],
    }
    for file, name in zip(files, _picture_names(files), strict=True):
        try:
            prediction = _predict(predictor, file, args.hop_sec)
            picture = _draw(prediction, args, name)
        except UserError as error:
            show(printable(f"avt: error: {error}"), file=sys.stderr)
            document["failed"].append({"path": file, "error": str(error)})
            continue
        if args.json:
            shown = {"picture": picture and str(picture)}
            document["files"].append(prediction.to_dict(args.top) | shown)
        else:
            _show(prediction, args.top, picture)
    if args.json:
        show(json.dumps(document, indent=1, allow_nan=False))
    where = "'failed' says why" if args.json else "the errors above say why"
    return len(document["failed"]), where


def _write(predictor: Predictor, files: Sequence[str], args: argparse.Namespace) -> tuple[int, str]:
    """Writes the results of all files; returns how many failed, and where that is said."""
    from avt_jax.inference.result_formats import Made
    from avt_jax.inference.results import key, open_results

    hop_sec = predictor.clip_sec if args.hop_sec is None else args.hop_sec
    made = Made(str(args.checkpoint), predictor.run.step, args.top, predictor.clip_sec, hop_sec)
    keys = [key(file) for file in files]
    again = keys if args.retry_failed else ()
    begun = time.monotonic()
    several = predictor.multi_label
    opened = open_results(args.out, made, predictor.label_sets, again=again, multi_label=several)
    with opened as results:
        todo = [i for i, one in enumerate(keys) if one not in results.failed]
        try:
            if todo:
                _predict_all(predictor, files, todo, results, args)
        except KeyboardInterrupt:
            num_done = sum(one in results.failed for one in keys)
            place = f"{num_done} of {len(files)} files are in {args.out}"
            show(f"avt: {place}; the same command goes on", file=sys.stderr)
            raise
        num_failed = sum(results.failed[one] for one in keys)
    seconds = time.monotonic() - begun
    said = f"{args.out}: {len(files) - num_failed} of {len(files)} files classified"
    if len(todo) < len(files):
        said += f", {len(files) - len(todo)} done before"
    if todo:
        said += f"; {seconds:.1f} s ({len(todo) / max(seconds, 1e-9):.1f} files/s)"
    show(said)
    again_too = "" if args.retry_failed else " (--retry-failed tries again)"
    return num_failed, f"'error' in {args.out} says why{again_too}"


def _predict_all(
    predictor: Predictor,
    files: Sequence[str],
    todo: Sequence[int],
    results: Results,
    args: argparse.Namespace,
) -> None:
    from avt_jax.data.extraction.extract import CLIP_TIMEOUT_SEC
    from avt_jax.host.progress import progress_bar
    from avt_jax.host.worker_pool import default_num_workers
    from avt_jax.inference.results import key

    names = _picture_names(files)
    num_failed = sum(results.failed.get(key(file), False) for file in files)
    with progress_bar(
        len(files), "predicting", "file", initial=len(files) - len(todo), smoothing=0.1
    ) as bar:
        found = predictor.predict_files(
            [files[i] for i in todo],
            hop_sec=args.hop_sec,
            num_workers=min(len(todo), default_num_workers()),
            time_limit_sec=CLIP_TIMEOUT_SEC,
        )
        for i, (path, prediction) in zip(todo, found, strict=True):
            if isinstance(prediction, UserError):
                num_failed += 1
            else:
                _draw(prediction, args, names[i])
            results.add(path, prediction)
            # The model is compiled: from here on Ctrl-C is heard at once, and workers can be ended.
            interrupts.raise_again()
            bar.set_postfix(failed=num_failed, refresh=False)
            bar.update()


def _predict(predictor: Predictor, file: str, hop_sec: float | None) -> FilePrediction:
    from tqdm import tqdm

    with tqdm(desc=printable(Path(file).name), unit="window", disable=None, leave=False) as bar:

        def on_window(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return predictor.predict_file(file, hop_sec=hop_sec, on_window=on_window)


def _picture_names(files: Sequence[str]) -> list[str]:
    """A name for the picture of each file: two of one name in different folders get one each."""
    taken: set[str] = set()
    names = []
    for file in files:
        stem, number = Path(file).stem, 1
        name = stem
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        names.append(name)
    return names


def _draw(prediction: FilePrediction, args: argparse.Namespace, name: str) -> Path | None:
    if not args.pictures:
        return None
    from avt_jax.inference.timeline import draw_timeline

    picture: Path = args.pictures / f"{name}.png"
    draw_timeline(prediction, picture, number=min(args.top, 10))
    return picture


def _show(prediction: FilePrediction, top: int, picture: Path | None) -> None:
    from avt_jax.host.output.tables import new_console
    from avt_jax.inference.report import file_table, heading, window_table

    console = new_console()
    console.print(heading(prediction), soft_wrap=True)
    console.print(file_table(prediction, top))
    if windows := window_table(prediction):
        console.print(windows)
    if picture:
        console.print(f"picture: {picture}", soft_wrap=True)
    console.print()


if __name__ == "__main__":
    sys.exit(run(main))
