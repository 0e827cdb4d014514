"""What an evaluation leaves in its folder: tables, curves, mistakes, reconstructions."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avt_jax.data.loading import pipeline
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.records import RecordSource
from avt_jax.evaluation import pictures, report
from avt_jax.evaluation.clips import ClipPredictions
from avt_jax.evaluation.mistakes import draw_mistakes
from avt_jax.evaluation.multi_label.pictures import draw_precisions
from avt_jax.experiment.reconstructions import write_reconstructions
from avt_jax.host.metric_lines import read_metrics
from avt_jax.training.checkpoint import Run
from avt_jax.training.writer import METRICS_FILE


def write(evaluation: report.Evaluation, out_dir: Path, run_dir: Path) -> list[Path]:
    """Writes all tables and draws their pictures."""
    written = report.write_results(evaluation, out_dir)
    for name, several in evaluation.multi.items():
        path = out_dir / f"classes_{name}.png"
        mean = "no class has clips" if several["mAP"] is None else f"mAP {several['mAP']:.3f}"
        title = f"{name}: {mean} over {several['count']} clips"
        if draw_precisions(path, several, title=title, subtitle=_what(evaluation.about)):
            written.append(path)
    for name, found in evaluation.single.items():
        if "confusion" not in found:
            continue
        written.append(out_dir / f"confusion_{name}.png")
        names = [entry["name"] for entry in found["classes"]]
        pictures.draw_confusion(
            written[-1],
            found["confusion"],
            names,
            title=f"{name}: {100 * found['top1']:.1f} % of {found['count']} clips right",
            subtitle=_what(evaluation.about),
        )
    curves = out_dir / "training_curves.png"
    entries = read_metrics(run_dir / METRICS_FILE)
    step = evaluation.about["step"]
    if pictures.draw_training_curves(curves, entries, title=str(run_dir), used_step=step):
        written.append(curves)
    return written


def _what(about: Mapping[str, Any]) -> str:
    """What was evaluated, in a line of a picture."""
    step = f"step {about['step']}{report.which_weights(about)}"
    return f"{about['run']}, {step}, split {about['split']}, {about['date'][:10]}"


def draw_worst(
    evaluation: report.Evaluation,
    predicted: ClipPredictions,
    group_n: np.ndarray,
    source: RecordSource,
    out_dir: Path,
) -> list[Path]:
    """Draws the worst mistakes of each label set."""
    written = []
    for name, one in predicted.sets.items():
        if one.labels_ny is not None:
            continue
        path = out_dir / f"mistakes_{name}.png"
        title = f"{name}: wrong with the most conviction. {_what(evaluation.about)}"
        classes = source.info.label_sets[name]
        if draw_mistakes(path, source, one, group_n, classes, title=title):
            written.append(path)
    return written


def reconstruct(trained: Run, source: Any, data: DataConfig, out_dir: Path) -> list[Path]:
    """Draws hidden and reconstructed patches of the first clips, if the model has decoders."""
    if not trained.config["model"].get("decoders"):
        return []
    data = replace(data, eval_clips=1, eval_crops=1)
    with contextlib.closing(pipeline.eval_batches(source, data, batch_size=4)) as batches:
        return write_reconstructions(trained, data, next(batches), out_dir)
