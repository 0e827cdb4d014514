"""`avt evaluate`: how good a trained model is, in numbers and pictures."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avt_jax.cli.common import parser, run
from avt_jax.errors import UserError

if TYPE_CHECKING:
    from avt_jax.data.loading.config import DataConfig
    from avt_jax.evaluation.report import Evaluation
    from avt_jax.training.checkpoint import Run

EPILOG = """\
Prints top-1, top-5 and the accuracy of every class, and for a model that sees and hears the same
with either of the two silenced. Writes results.json, confusion_<label set>.csv and .png, and
training_curves.png to RUN_DIR/evaluation-<split>; for a model with decoders also
reconstruction_<modality>.png, what was hidden and what the model makes of it.

  avt evaluate --checkpoint runs/quickstart/av
  avt evaluate --checkpoint runs/mine --data other/shards --split val --out report
  avt evaluate --checkpoint runs/mine --clips 4 --crops 3
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt evaluate`."""
    cli = parser("evaluate", "Evaluate a trained model on a split.", EPILOG)
    cli.add_argument(
        "--checkpoint", required=True, type=Path, metavar="RUN_DIR", help="folder of a trained run"
    )
    cli.add_argument("--data", metavar="SHARDS", help="shard folder (default: the run's)")
    cli.add_argument("--split", default="test", help="split to evaluate (default %(default)s)")
    cli.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default RUN_DIR/evaluation-SPLIT)"
    )
    cli.add_argument(
        "--batch-size", type=int, metavar="N", help="clips at once (default: the run's)"
    )
    cli.add_argument(
        "--clips",
        type=int,
        metavar="N",
        help="clips of each record, from its start to its end; their probabilities are averaged "
        "(default: the run's config.data.eval_clips)",
    )
    cli.add_argument(
        "--crops",
        type=int,
        metavar="N",
        help="squares of each frame, along its longer side (default: the run's)",
    )
    cli.add_argument(
        "--step",
        choices=("best", "last"),
        default="best",
        help="checkpoint with the best validation score, or the last one (default %(default)s)",
    )
    return cli


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code.

    Raises:
      UserError: no such run, data that do not fit it, or a folder that cannot be written.
    """
    args = build_parser().parse_args(argv)
    for name in ("batch_size", "clips", "crops"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: give 1 or more.")
    from avt_jax.inference.load import data_config, load_predict

    trained, predict = load_predict(args.checkpoint, args.step)
    data = data_config(trained)
    data = dataclasses.replace(
        data,
        path=args.data or data.path,
        eval_split=args.split,
        eval_clips=args.clips or data.eval_clips,
        eval_crops=args.crops or data.eval_crops,
    )
    source = _open(data, trained)
    batch_size = args.batch_size or trained.config["train"]["eval_batch_size"]
    out_dir = args.out or args.checkpoint / f"evaluation-{args.split}"
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out_dir}: {error.strerror}; give another folder.") from error
    evaluation = _evaluate(args, trained, predict, source, data, batch_size)
    _write(evaluation, out_dir, args.checkpoint)
    _reconstruct(trained, source, data, out_dir)
    return 0


def _open(data: DataConfig, trained: Run) -> Any:
    """The split's records, after checking that their classes are the run's."""
    from avt_jax.data import records
    from avt_jax.data.records.generated import is_generated, open_generated
    from avt_jax.evaluation.report import first_class_difference

    if is_generated(data.path):
        info, source = open_generated(data.path, data.eval_split)
    else:
        info, source = records.read_info(data.path), records.open_split(data.path, data.eval_split)
    if difference := first_class_difference(trained.label_sets, info.label_sets):
        raise UserError(
            f"{data.path} has other classes than the run was trained on: {difference}; give "
            "shards that were extracted with the same classes."
        )
    if not len(source):
        raise UserError(f"the split {data.eval_split!r} of {data.path} is empty; give another.")
    return source


def _variants(modalities: str, data: DataConfig) -> dict[str, Callable[[dict], dict]]:
    """{name: change of a batch}: as it is, and for two modalities with either one silenced."""
    from avt_jax.audio.melspec import LOG_FLOOR
    from avt_jax.evaluation.classification import silence_audio, silence_video

    if modalities != "av":
        return {"": dict}
    return {
        "": dict,
        "audio": functools.partial(silence_audio, log_floor=LOG_FLOOR),
        "video": functools.partial(silence_video, video_mean=data.video_mean),
    }


def _evaluate(
    args: argparse.Namespace,
    trained: Run,
    predict: Callable[[dict], dict],
    source: Any,
    data: DataConfig,
    batch_size: int,
) -> Evaluation:
    from tqdm import tqdm

    from avt_jax.data.loading import pipeline
    from avt_jax.evaluation.classification import evaluate_variants
    from avt_jax.evaluation.report import Evaluation

    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        batches: Iterator[dict[str, Any]] = pipeline.eval_batches(
            source, data, batch_size=batch_size
        )
        if hasattr(batches, "close"):
            stack.enter_context(contextlib.closing(batches))
        bar = stack.enter_context(
            tqdm(total=len(source), desc=f"evaluate {args.split}", unit="clip", disable=None)
        )
        variants = _variants(trained.config["model"]["modalities"], data)
        found = evaluate_variants(
            predict,
            batches,
            trained.label_sets,
            variants,
            num_views=data.eval_views,
            on_batch=bar.update,
        )
    seconds = time.monotonic() - began
    print(
        f"evaluated {len(source)} clips in {seconds:.1f} s ({len(source) / seconds:.1f} clips/s)",
        file=sys.stderr,
    )
    about = {
        "run": str(args.checkpoint),
        "step": trained.step,
        "data": data.path,
        "split": args.split,
        "clips": data.eval_clips,
        "crops": data.eval_crops,
        "seconds": round(seconds, 3),
    }
    return Evaluation(about, found.pop(""), found)


def _reconstruct(trained: Run, source: Any, data: DataConfig, out_dir: Path) -> None:
    """Draws hidden and reconstructed patches of the first clips, if the model has decoders."""
    if not trained.config["model"].get("decoders"):
        return
    from avt_jax.cli.reconstructions import write_reconstructions
    from avt_jax.data.loading import pipeline

    data = dataclasses.replace(data, eval_clips=1, eval_crops=1)
    with contextlib.closing(pipeline.eval_batches(source, data, batch_size=4)) as batches:
        for path in write_reconstructions(trained, data, next(batches), out_dir):
            print(f"wrote {path}")


def _write(evaluation: Evaluation, out_dir: Path, run_dir: Path) -> None:
    """Prints the tables and writes all files."""
    from rich.console import Console

    from avt_jax.evaluation import pictures, report

    console = Console()
    console.print(report.accuracy_table(evaluation))
    for name, found in evaluation.reports.items():
        if "classes" in found:
            console.print(report.class_table(name, found))
    written = report.write_results(evaluation, out_dir)
    for name, found in evaluation.reports.items():
        if "confusion" not in found:
            continue
        written.append(out_dir / f"confusion_{name}.png")
        names = [entry["name"] for entry in found["classes"]]
        title = f"{name}: {100 * found['top1']:.1f} % of {found['count']} clips right"
        pictures.draw_confusion(written[-1], found["confusion"], names, title=title)
    curves = out_dir / "training_curves.png"
    entries = report.read_metrics(run_dir / "metrics.jsonl")
    if pictures.draw_training_curves(curves, entries, title=str(run_dir)):
        written.append(curves)
    for path in written:
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(run(main))
