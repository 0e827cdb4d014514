"""The folder of a run's checkpoints: which are there, which stay, what was left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from avt_jax.errors import UserError

CHECKPOINTS = "checkpoints"

DAMAGED, _DELETED = ".damaged", ".deleted"
# What Orbax calls a step that is being written.
_PARTIAL = ".orbax-checkpoint-tmp"


def has_checkpoint(run_dir: str | Path) -> bool:
    """Whether a run folder holds a finished checkpoint, intact or not."""
    return bool(list_steps(Path(run_dir) / CHECKPOINTS))


def list_steps(folder: Path) -> list[int]:
    """The steps of the finished checkpoints in a folder, the newest first; [] without a folder.

    Raises:
      UserError: it cannot be looked into.
    """
    try:
        names = [entry.name for entry in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"cannot look into {folder}: {error.strerror or error}; make it readable for this "
            "user, or give another folder."
        ) from error
    # Only names that a step's number has: not "007".
    return sorted((int(n) for n in names if n.isdecimal() and str(int(n)) == n), reverse=True)


def is_left_behind(path: Path) -> bool:
    """Whether an entry is what a killed process was writing or deleting."""
    step, dot, _ = path.name.partition(".")
    return step.isdecimal() and (_PARTIAL in path.name or path.name == f"{step}{_DELETED}")


def is_set_aside(path: Path) -> bool:
    """Whether an entry is a damaged checkpoint that was set aside."""
    step, _, rest = path.name.partition(".")
    return step.isdecimal() and f".{rest}".startswith(DAMAGED)


def clean(folder: Path) -> None:
    """Removes what killed processes were writing or deleting. Only for who alone writes there."""
    for path in folder.iterdir():
        if is_left_behind(path):
            shutil.rmtree(path, ignore_errors=True)


def delete(folder: Path, step: int) -> None:
    """Deletes a checkpoint; one that is deleted in part never bears a step's name."""
    gone = folder / f"{step}{_DELETED}"
    shutil.rmtree(gone, ignore_errors=True)
    (folder / str(step)).rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def set_aside(path: Path) -> Path:
    """Renames what is damaged to `<name>.damaged`, with a number where that is taken."""
    aside, number = path.with_name(f"{path.name}{DAMAGED}"), 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}{DAMAGED}-{number}")
    return path.rename(aside)


def kept(scores: Mapping[int, float | None], *, last: int, best: int) -> set[int]:
    """Which checkpoints stay.

    Args:
      scores: {step: validation score, None where none was measured}.
      last: number of newest ones.
      best: number of those with the highest score.
    """
    newest = sorted(scores, reverse=True)
    return {*newest[:last], *[s for s in best_first(scores) if scores[s] is not None][:best]}


def best_first(scores: Mapping[int, float | None]) -> list[int]:
    """The steps, highest score first.

    Among equal scores, and among those without one, which come last, the newest is first.
    """

    def rank(step: int) -> tuple[bool, float, int]:
        score = scores[step]
        return score is not None, score or 0.0, step

    return sorted(scores, key=rank, reverse=True)
