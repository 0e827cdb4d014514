"""A learning-rate range test: some steps of a training, at a rate that grows from tiny to huge.

Source: L. N. Smith, arXiv:1506.01186; the loss is smoothed, and the test ends early, as in fastai.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avt_jax.errors import UserError
from avt_jax.evaluation.pictures import BLUE, GRID, draw_title, new_figure, save_png
from avt_jax.experiment.assemble import Experiment, Say, silent
from avt_jax.experiment.start import weights_of
from avt_jax.host.new_files import replacing
from avt_jax.host.output.cells import CellWriter
from avt_jax.host.progress import progress_bar
from avt_jax.training import mesh as meshes
from avt_jax.training.checkpoint import CONFIG_FILE, has_checkpoint
from avt_jax.training.state import with_variables

CSV_FILE, PNG_FILE = "lr_find.csv", "lr_find.png"
_SMOOTHING = 0.9
# The test ends where the smoothed loss is so many times its lowest value.
_TOO_HIGH = 4.0
# The smoothed loss of the first steps is that of a few batches.
_SKIPPED = 5


@dataclass(frozen=True)
class Found:
    """What a range test found.

    Attributes:
      rate_n: learning rate of each step.
      loss_n: loss of its batch.
      smooth_n: the same, smoothed.
      steepest: rate at which the smoothed loss falls fastest; None where it never falls.
      diverges: first rate at which the loss is no number, or higher than at the start again; None
        where it never is.
    """

    rate_n: np.ndarray
    loss_n: np.ndarray
    smooth_n: np.ndarray
    steepest: float | None
    diverges: float | None


def find_rate(
    experiment: Experiment,
    *,
    steps: int = 100,
    low: float = 1e-6,
    high: float = 1.0,
    say: Say = silent,
) -> Found:
    """Trains for some steps and throws the weights away.

    Args:
      experiment: a fresh one; its learning rate becomes that of the test.
      steps: at most, 10 or more.
      low: rate of the first step, > 0.
      high: rate of the last step, > low.
      say: is told what the training starts from.

    Raises:
      UserError: anything wrong in the config or the data, or a range that is none.
    """
    if steps < 10 or not 0 < low < high:
        raise UserError(
            f"{steps} steps from {low:g} to {high:g} are no range of learning rates; give 10 or "
            "more, from a rate above 0 to a larger one."
        )
    rate_n = np.geomspace(low, high, steps)
    experiment.learning_rate = lambda step: low * (high / low) ** (step / (steps - 1))
    # The rate is looked for of all that is trained in the end.
    experiment.hold = None
    experiment.check_batches()
    birth = experiment.birth
    given, said = weights_of(experiment)
    for line in said:
        say(line)
    step = experiment.packed_step(birth.shardings, birth.shapes)
    state, places = experiment.init_state()
    state = step.pack(with_variables(state, places, given))
    losses: list[float] = []
    with (
        contextlib.closing(experiment.train_batches(say)) as batches,
        progress_bar(steps, "lr-find", "step", leave=False) as bar,
    ):
        for _ in range(steps):
            batch = meshes.to_device(next(batches), experiment.mesh)
            state, metrics = step(state, batch, experiment.keys[1])
            losses.append(float(metrics["loss"][0]))
            bar.update()
            smooth_n = smoothed(losses)
            if not np.isfinite(smooth_n[-1]) or smooth_n[-1] > _TOO_HIGH * abs(smooth_n.min()):
                break
    return judged(rate_n[: len(losses)], np.array(losses))


def smoothed(losses: list[float] | np.ndarray) -> np.ndarray:
    """Exponentially weighted means of the losses so far, [n], without the pull towards 0."""
    mean, found = 0.0, []
    for number, loss in enumerate(losses, 1):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * float(loss)
        found.append(mean / (1 - _SMOOTHING**number))
    return np.array(found)


def judged(rate_n: np.ndarray, loss_n: np.ndarray) -> Found:
    """Finds the two rates.

    Args:
      rate_n: ascending.
      loss_n: of each; from some step on it may be no finite number.
    """
    smooth_n = smoothed(loss_n)
    finite = int(np.isfinite(smooth_n).sum())
    steepest = diverges = None
    if finite > _SKIPPED + 1:
        lowest = int(smooth_n[:finite].argmin())
        slope_n = np.gradient(smooth_n[:finite], np.log(rate_n[:finite]))[: lowest + 1]
        if len(slope_n) > _SKIPPED and slope_n[_SKIPPED:].min() < 0:
            steepest = float(rate_n[_SKIPPED + int(slope_n[_SKIPPED:].argmin())])
        high_again_n = np.flatnonzero(smooth_n[lowest:finite] > smooth_n[_SKIPPED]) + lowest
        if len(high_again_n) and high_again_n[0] > lowest:
            diverges = float(rate_n[high_again_n[0]])
    if diverges is None and finite < len(rate_n):
        diverges = float(rate_n[finite])
    return Found(rate_n, loss_n, smooth_n, steepest, diverges)


def check_folder(folder: Path) -> None:
    """Makes sure that a folder is none of a run's, and there.

    Raises:
      UserError: it is one, or cannot be made.
    """
    if has_checkpoint(folder) or (folder / CONFIG_FILE).exists():
        raise UserError(
            f"--workdir {folder} is the folder of a run, which lr-find leaves alone; give another."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--workdir {folder} cannot be used: {error.strerror}; give another."
        ) from error


def write(found: Found, folder: Path, *, title: str) -> list[Path]:
    """Writes the table and the plot; returns their paths."""
    table, picture = folder / CSV_FILE, folder / PNG_FILE
    with replacing(table) as file:
        writer = CellWriter(file)
        writer.row(["step", "lr", "loss", "smoothed_loss"])
        columns = zip(found.rate_n, found.loss_n, found.smooth_n, strict=True)
        writer.rows([number, *map(float, row)] for number, row in enumerate(columns))
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    axes.plot(found.rate_n, found.loss_n, color="#c7ccd4", lw=1, label="loss of each batch")
    axes.plot(found.rate_n, found.smooth_n, color=BLUE, lw=1.8, label="smoothed")
    for rate, colour, what in (
        (found.steepest, "#059669", "falls fastest"),
        (found.diverges, "#dc2626", "diverges"),
    ):
        if rate is not None:
            axes.axvline(rate, color=colour, lw=1.2, ls="--", label=f"{what}: {rate:.2g}")
    axes.set_xscale("log")
    finite_n = found.smooth_n[np.isfinite(found.smooth_n)]
    if len(finite_n):
        spread = max(float(np.ptp(finite_n[: max(len(finite_n) - 3, 1)])), 1e-3)
        lowest = min(finite_n.min(), found.loss_n[: len(finite_n)].min())
        axes.set_ylim(lowest - 0.1 * spread, finite_n[0] + 1.5 * spread)
    axes.set(xlabel="learning rate", ylabel="loss")
    draw_title(axes, title, "")
    axes.grid(color=GRID, lw=0.8)
    axes.legend(frameon=False, fontsize=8)
    save_png(figure, picture, dpi=130)
    return [table, picture]
