"""Saves and restores the checkpoints of a training, in all its processes."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from avt_jax.errors import UserError, first_line
from avt_jax.host.output.terminal import show
from avt_jax.training.checkpoint import folder as folders
from avt_jax.training.checkpoint import stored
from avt_jax.training.checkpoint.checksum import checksums
from avt_jax.training.checkpoint.folder import CHECKPOINTS
from avt_jax.training.checkpoint.run_files import CONFIG_FILE, RUN_FILE
from avt_jax.training.processes import agree
from avt_jax.training.state import TrainState

# How TensorStore, which has errors of its own, tells of the file system.
_OF_THE_DISK = tuple(
    os.strerror(code)
    for code in (
        errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
        errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ECONNABORTED,
    )
)  # fmt: skip


def _parts(state: TrainState) -> dict[str, Any]:
    return {
        "step": state.step,
        "params": state.params,
        "stats": state.stats,
        "ema": state.ema,
        "opt_state": state.opt_state,
    }


class Checkpointer:
    """Keeps the newest checkpoints of a run, and the best.

    Args:
      run_dir: the run's folder; checkpoints go to `<run_dir>/checkpoints/<step>`.
      keep_last: number of newest checkpoints to keep.
      keep_best: number of checkpoints with the highest validation score to keep.

    Raises:
      UserError: the folder cannot be written.
    """

    def __init__(self, run_dir: Path, *, keep_last: int, keep_best: int):
        self._folder = Path(run_dir).absolute() / CHECKPOINTS
        self._keep = {"last": keep_last, "best": keep_best}
        stored.quiet_orbax()
        self._is_open = False
        agree.by_the_first(self._open_folder)
        # By these a folder is told from one that Orbax has made anew.
        files = [self._folder.parent / name for name in (CONFIG_FILE, RUN_FILE)]
        self._beside = [path for path in files if path.exists()]
        self._saver = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        # The step that is being written.
        self._saving: int | None = None
        self._has_failed = False
        self._is_open = True

    def _open_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            folders.clean(self._folder)
        except OSError as error:
            raise self._cannot_write(None, error) from error

    def save(
        self,
        state: TrainState,
        position: dict[str, Any],
        score: float | None = None,
        *,
        replace: bool = False,
    ) -> None:
        """Starts writing a checkpoint; returns before it is on disk.

        Args:
          state: the training state.
          position: the data iterator's state, JSON-able.
          score: validation score (higher is better), or None when it was not measured.
          replace: one of the same step, which is of the same state, gets this score; else it stays
            as it is.

        Raises:
          UserError: it, or the one before, cannot be written; says what to do.
        """
        self.wait()
        step = int(state.step)
        if agree.as_the_first(step in folders.list_steps(self._folder)):
            if replace and score is not None:
                agree.by_the_first(lambda: self._write_score(step, score))
            return
        # Orbax would make the folder anew.
        agree.by_the_first(self._check_folder)
        parts = _parts(state)
        meta = stored.Meta(
            position=position,
            checksums=checksums(parts),
            structure=stored.structure(parts),
            score=None if score is None else float(score),
        )
        args = ocp.args.Composite(
            # An empty group (no averaged parameters, say) has nothing to write.
            state=ocp.args.PyTreeSave({k: v for k, v in parts.items() if jax.tree.leaves(v)}),
            meta=ocp.args.JsonSave(meta.to_json()),
        )
        self._saving = step
        self._or_cannot_write(lambda: self._saver.save(self._folder / str(step), args=args))

    def rehearse(self, state: TrainState) -> None:
        """Compiles what saving such a state needs."""
        checksums(_parts(state))

    def restore(
        self, like: TrainState, shardings: TrainState
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Reads the newest intact checkpoint.

        A damaged one is set aside (renamed `<step>.damaged`) with a message on stderr.

        Args:
          like: a state (or its shapes) of the same structure.
          shardings: where each array goes.

        Returns:
          (state, position), or None when there is no checkpoint.

        Raises:
          UserError: the checkpoints belong to another model, none is intact, or this user may not
            read them.
        """
        damaged: list[int] = []
        while (step := self._newest_but(damaged)) is not None:
            try:
                restored = self._restore_step(step, like, shardings)
            except stored.DamagedError as error:
                if agree.is_first():
                    show(
                        f"avt: checkpoint {step} is damaged ({error}); trying an older one",
                        file=sys.stderr,
                    )
                damaged.append(step)
                continue
            if damaged:
                agree.by_the_first(lambda: self._set_aside(damaged))
            return restored
        if damaged:
            raise UserError(
                f"no checkpoint in {self._folder} is intact (tried {damaged}); "
                "move the folder away to train from the start."
            )
        return None

    def _newest_but(self, damaged: list[int]) -> int | None:
        """The newest step that is not among these; as the first process sees the folder."""
        steps = [step for step in folders.list_steps(self._folder) if step not in damaged]
        mine = steps[0] if steps else -1
        found = int(agree.total(np.array([mine if agree.is_first() else 0], np.int64))[0])
        return None if found < 0 else found

    def _restore_step(
        self, step: int, like: TrainState, shardings: TrainState
    ) -> tuple[TrainState, dict[str, Any]]:
        wanted = {k: v for k, v in _parts(like).items() if jax.tree.leaves(v)}
        places = {k: v for k, v in _parts(shardings).items() if k in wanted}
        targets = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), wanted, places
        )
        how = ocp.checkpoint_utils.construct_restore_args(targets)
        step_folder = self._folder / str(step)

        def read() -> tuple[stored.Meta, dict[str, Any]]:
            meta = stored.read_meta(step_folder)
            _check_shapes(stored.stored_arrays(step_folder, meta), targets, self._folder)
            return meta, stored.read_arrays(step_folder, targets, how)

        meta, found = _all_or_none(read)
        parts: dict[str, Any] = {**{k: {} for k in _parts(like)}, **found}
        # Of arrays that all processes hold together: every one comes to the same.
        stored.check_sums(parts, meta)
        return TrainState(**parts), meta.position

    def _set_aside(self, steps: list[int]) -> None:
        for step in steps:
            try:
                aside = folders.set_aside(self._folder / str(step))
            except OSError as error:
                raise self._cannot_write(None, error) from error
            show(f"avt: checkpoint {step} is now {aside}", file=sys.stderr)

    def _write_score(self, step: int, score: float) -> None:
        try:
            stored.write_score(self._folder / str(step), score)
        except stored.DamagedError as error:
            raise self._cannot_write(step, error) from error

    def wait(self) -> None:
        """Blocks until every started checkpoint is on disk, then deletes those that need not stay.

        Raises:
          UserError: it cannot be written; says what to do.
        """
        if self._saving is None:
            return
        self._or_cannot_write(self._saver.wait_until_finished)
        self._saving = None
        if agree.is_first():
            self._or_cannot_write(self._prune)

    def _prune(self) -> None:
        steps = folders.list_steps(self._folder)
        scores = {step: stored.score_of(self._folder / str(step)) for step in steps}
        for step in scores.keys() - folders.kept(scores, **self._keep):
            folders.delete(self._folder, step)

    def close(self) -> None:
        """Waits, then frees Orbax's threads.

        Raises:
          UserError: a checkpoint cannot be written, unless it has been said before.
        """
        try:
            if not self._has_failed:
                self.wait()
                self._or_cannot_write(self._saver.close)
        finally:
            if self._has_failed:
                self._close_failed()

    def _close_failed(self) -> None:
        """What failed once may fail again here, and has been told."""
        for close in (self._saver.wait_until_finished, self._saver.close):
            with contextlib.suppress(Exception):
                close()
        if agree.is_first():
            # What was half written has its part in a full disk.
            with contextlib.suppress(OSError):
                folders.clean(self._folder)

    def _or_cannot_write(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            step, self._saving, self._has_failed = self._saving, None, True
            stored.quiet_loose_ends()
            known = isinstance(error, OSError) or any(s in str(error) for s in _OF_THE_DISK)
            if not known and not self._is_gone():
                raise
            raise self._cannot_write(step, error) from error

    def _is_gone(self) -> bool:
        """Whether the run's folder was deleted since the checkpoints in it were opened."""
        try:
            if not self._folder.is_dir():
                return True
            return bool(self._beside) and not any(path.exists() for path in self._beside)
        except OSError:  # a mount that has died
            return False

    def _check_folder(self) -> None:
        if self._is_gone():
            raise self._cannot_write(None, FileNotFoundError())

    def _cannot_write(self, step: int | None, error: Exception) -> UserError:
        if self._is_open and self._is_gone():
            return UserError(
                f"{self._folder} was deleted while the training was running; what it had learnt "
                "since is lost, and the same command starts anew."
            )
        what = f"checkpoint {step}" if step is not None else "checkpoints"
        reason = next((one for one in _OF_THE_DISK if one in str(error)), first_line(error))
        try:
            before = [found for found in folders.list_steps(self._folder) if found != step]
            goes_on = f"goes on from step {before[0]}" if before else "starts anew"
        except UserError:
            goes_on = "goes on from its last checkpoint"
        return UserError(
            f"cannot write {what} to {self._folder} ({reason}); mend that, then the same command "
            f"{goes_on}."
        )


def _all_or_none(read: Callable[[], Any]) -> Any:
    """What a function returns where it succeeds in all processes.

    Raises:
      DamagedError: in one of them it is damaged.
    """
    damaged: stored.DamagedError | None = None

    def mine() -> Any:
        nonlocal damaged
        try:
            return read()
        except stored.DamagedError as error:
            damaged = error

    found = agree.together(mine)
    if agree.total(np.array([damaged is not None], np.int64))[0]:
        raise damaged or stored.DamagedError("another process cannot read it")
    return found


def _check_shapes(stored: Mapping[str, Any], targets: Any, folder: Path) -> None:
    here = {name: tuple(leaf.shape) for name, leaf in targets["params"].items()}
    there = {name: tuple(leaf.shape) for name, leaf in stored["params"].items()}
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise UserError(
                f"the checkpoints in {folder} are of another model: {name} is "
                f"{there.get(name, 'missing')} there and {here.get(name, 'missing')} in this "
                "config; use another --workdir or the run's own config."
            )
