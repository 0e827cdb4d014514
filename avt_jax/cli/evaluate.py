"""`avt evaluate`: how good a trained model is, in numbers and pictures."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from avt_jax.cli.common import add_run, parser, run
from avt_jax.cli.processes import job
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import show

if TYPE_CHECKING:
    from avt_jax.experiment.evaluate import EvaluationResult
    from avt_jax.experiment.judging.epic import Epic

EPILOG = """\
Prints top-1, top-5 and the accuracy of every class, for a model that sees and hears the same with
either of the two silenced, and beside the accuracy what it is worth: a 95 % interval over sources,
the training clips, chance, always the same answer, and a baseline that is fitted in seconds to the
same clips (avt baseline). A line says when the model does not beat it, and for a model that sees
and hears one gives mu, the share of clips that sound or picture alone gets right and both together
get wrong, and says when fusion hurts.

Of a multi-label set (docs/multi_label.md) it prints mAP, AUC and d', hit rates and F1, and average
precision, AUC and d' of every class, in place of accuracies; what mAP is worth is said in the same
way.

Writes results.json, clips.csv (what was predicted for each clip), confusion_<label set>.csv and
.png (multi-label: classes_<label set>.csv and .png), mistakes_<label set>.png and
training_curves.png to RUN_DIR/evaluation-<split>; for a model with decoders also
reconstruction_<modality>.png, what was hidden and what the model makes of it.

  avt evaluate --checkpoint runs/quickstart/av
  avt evaluate --checkpoint runs/mine --data other/shards --split val --out report
  avt evaluate --checkpoint runs/mine --clips 4 --crops 3
  avt evaluate --checkpoint runs/epic --split val --clips 4 --epic epic-kitchens-100-annotations

""" + job.EPILOG.format(command="evaluate")


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt evaluate`."""
    cli = parser("evaluate", "Evaluate a trained model on a split.", EPILOG)
    add_run(cli)
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
        "--weights",
        choices=("averaged", "raw"),
        default="averaged",
        help="of a run with config.optimizer.ema_decay: the averaged weights, which validation and "
        "prediction use, or those that were trained (to RUN_DIR/evaluation-SPLIT-raw; default "
        "%(default)s)",
    )
    cli.add_argument("--no-baseline", action="store_true", help="do not compare with the baseline")
    cli.add_argument(
        "--group-by",
        metavar="REGEX",
        help="the intervals take sources in which this reads the same for one, as 'avt manifest "
        "--group-by' does: '(.+)__' for cow__fr.mp4 and cow__de.mp4",
    )
    cli.add_argument(
        "--table",
        choices=("csv", "parquet"),
        default="csv",
        help="format of the predictions for single clips (default %(default)s)",
    )
    add_epic(cli)
    job.add_options(cli)
    return cli


def add_epic(cli: argparse.ArgumentParser) -> None:
    """Adds the options of EPIC-Kitchens-100's challenge."""
    cli.add_argument(
        "--epic",
        type=Path,
        metavar="ANNOTATIONS",
        help="EPIC-Kitchens-100: folder of the authors' annotation files; prints verb, noun and "
        "action accuracies of all, of unseen participants, tail classes and each participant",
    )
    cli.add_argument(
        "--epic-submission",
        type=Path,
        metavar="FILE",
        help="with --epic: the scores as the challenge takes them, .json or .zip",
    )
    cli.add_argument(
        "--sls",
        type=int,
        nargs=3,
        metavar=("PT", "TL", "TD"),
        help="supervision levels of the submission, 0 to 5: pretraining, training labels, training "
        "data (https://github.com/epic-kitchens/sls)",
    )


def _epic(args: argparse.Namespace) -> Epic | None:
    from avt_jax.experiment.judging.epic import Epic

    if args.epic is None:
        for name in ("epic_submission", "sls"):
            if getattr(args, name) is not None:
                raise UserError(f"--{name.replace('_', '-')} needs --epic ANNOTATIONS.")
        return None
    if args.epic_submission is None and args.sls is not None:
        raise UserError("--sls is of a submission; add --epic-submission FILE.")
    if args.epic_submission is not None and args.sls is None:
        raise UserError("--epic-submission needs --sls PT TL TD, three levels from 0 to 5.")
    return Epic(args.epic, args.epic_submission, args.sls or ())


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
    return job.run(args, functools.partial(_evaluate, args))


def _evaluate(args: argparse.Namespace) -> None:
    from avt_jax.experiment.evaluate import evaluate_run
    from avt_jax.training.processes.agree import is_first

    found = evaluate_run(
        args.checkpoint,
        data=args.data,
        split=args.split,
        step=args.step,
        batch_size=args.batch_size,
        clips=args.clips,
        crops=args.crops,
        out_dir=args.out,
        with_baseline=not args.no_baseline,
        group_by=args.group_by,
        table=args.table,
        weights=args.weights,
        epic=_epic(args),
        say=functools.partial(show, file=sys.stderr),
    )
    if is_first():
        _show(found)


def _show(found: EvaluationResult) -> None:
    """Prints the tables and what was written."""
    from avt_jax.evaluation import report
    from avt_jax.evaluation.standing import verdict
    from avt_jax.host.output.tables import new_console

    console = new_console()
    for table in report.tables(found.evaluation):
        console.print(table)
    for line in report.notes(found.evaluation):
        console.print(line, soft_wrap=True)
    for path in found.files:
        console.print(f"wrote {path}", soft_wrap=True)
    for name, standing in found.evaluation.standings.items():
        console.print(verdict(name, standing), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(run(main))
