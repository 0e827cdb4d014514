"""One checkpoint on disk: what is in its folder, and how it is read by whoever reads it."""

from __future__ import annotations

import json
import logging
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from avt_jax.errors import UserError, first_line
from avt_jax.host.new_files import write_json
from avt_jax.training.checkpoint.checksum import checksums

# The items of a step's folder, as Orbax names them.
STATE, META = "state", "meta"
_META_FILE = Path(META) / "metadata"
_CHECK = "check"
# The parts of a state that are a model's.
_VARIABLES = {"params", "stats", "ema"}
# Checkpoints of earlier versions: the score was Orbax's own, and nothing vouched for the rest.
_EARLIER = {"position", "checksums"}
_EARLIER_SCORE = Path("metrics") / "metrics"


class DamagedError(Exception):
    """A finished checkpoint that cannot be trusted."""


@dataclass(frozen=True)
class Meta:
    """What a checkpoint holds besides arrays.

    Attributes:
      position: of the data iterator.
      checksums: {part of the state: `checksum`}.
      structure: `structure` of the arrays; None in those of earlier versions.
      score: validation score, or None when it was not measured.
    """

    position: dict[str, Any]
    checksums: dict[str, int]
    structure: int | None = None
    score: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields, and a checksum of them."""
        fields = asdict(self)
        return {**fields, _CHECK: _crc(fields)}


def _crc(content: Any) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def structure(state: Mapping[str, Any]) -> int:
    """A checksum of names, shapes and dtypes of a model's variables.

    Args:
      state: {part: {path: array, or what has a shape and a dtype}}; other parts than those of
        variables are passed over.
    """
    return _crc(
        [
            (group, path, list(leaf.shape), str(np.dtype(leaf.dtype)))
            for group in sorted(_VARIABLES)
            for path, leaf in sorted(state.get(group, {}).items())
        ]
    )


def read_meta(step_folder: Path) -> Meta:
    """Reads what a checkpoint holds besides arrays.

    Raises:
      DamagedError: it is not what was written.
      UserError: this user may not read it.
    """
    check_readable(step_folder)
    found = _read_object(step_folder / _META_FILE)
    fields = {name: value for name, value in found.items() if name != _CHECK}
    if fields.keys() == _EARLIER and _CHECK not in found:
        fields["score"] = _earlier_score(step_folder)
    elif found.get(_CHECK) != _crc(fields):
        raise DamagedError(f"the checksum of {_META_FILE} does not match")
    try:
        meta = Meta(**fields)
    except TypeError as error:
        raise DamagedError(f"{_META_FILE} is of another version: {first_line(error)}") from error
    sums = meta.checksums
    has_sums = isinstance(sums, dict) and all(type(one) is int for one in sums.values())
    if not (isinstance(meta.position, dict) and has_sums and _VARIABLES <= sums.keys()):
        raise DamagedError(f"{_META_FILE} is not what was written")
    return meta


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path.name} of {path.parent.name}: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise DamagedError(f"{path.name} of {path.parent.name} is not an object")
    return found


def _earlier_score(step_folder: Path) -> float | None:
    try:
        score = _read_object(step_folder / _EARLIER_SCORE).get("score")
    except DamagedError:
        return None
    return float(score) if isinstance(score, (int, float)) else None


def score_of(step_folder: Path) -> float | None:
    """A checkpoint's score; None also for one that is damaged."""
    try:
        return read_meta(step_folder).score
    except DamagedError:
        return None


def write_score(step_folder: Path, score: float) -> None:
    """Gives a checkpoint the score that it was saved without; its arrays are not touched."""
    meta = read_meta(step_folder)
    fields = asdict(meta) | {"score": float(score)}
    write_json(step_folder / _META_FILE, Meta(**fields).to_json(), indent=None, durable=True)


def check_readable(step_folder: Path) -> None:
    """Raises a UserError where this user may not read a checkpoint, which is then not damaged."""
    try:
        # Not `walk`, which passes over folders that cannot be read.
        for path in [step_folder, *step_folder.rglob("*")]:
            if path.is_dir():
                next(path.iterdir(), None)
            elif path.is_file():
                path.open("rb").close()
    except PermissionError as error:
        raise UserError(
            f"cannot read {error.filename or step_folder}: {error.strerror}; make it readable for "
            "this user."
        ) from error
    except OSError:  # whoever reads it will see
        return


def stored_arrays(step_folder: Path, meta: Meta) -> dict[str, Any]:
    """The stored tree with array metadata as leaves.

    Raises:
      DamagedError: it cannot be read, or is not what was saved.
    """

    with ocp.PyTreeCheckpointer() as reader:
        stored = _or_damaged(lambda: dict(reader.metadata(step_folder / STATE).item_metadata.tree))
    if meta.structure is not None and _or_damaged(lambda: structure(stored)) != meta.structure:
        raise DamagedError("its arrays are not named and shaped as those that were saved")
    return stored


def read_arrays(step_folder: Path, targets: Any, restore_args: Any) -> dict[str, Any]:
    """Reads arrays; `check_sums` is for who has them all.

    Args:
      step_folder: the checkpoint's.
      targets: {part of the state: tree}, of which all or some parts are read.
      restore_args: how, a tree of Orbax's.

    Raises:
      DamagedError: they cannot be read.
    """

    # The handler itself: around it Orbax makes processes wait for one that has failed.
    handler = ocp.PyTreeCheckpointHandler()
    args = ocp.args.PyTreeRestore(targets, restore_args=restore_args, partial_restore=True)
    return _or_damaged(lambda: dict(handler.restore(step_folder / STATE, args=args)))


def check_sums(parts: Mapping[str, Any], meta: Meta) -> None:
    """Raises DamagedError where arrays are not those that were saved."""
    if any(value != meta.checksums.get(name) for name, value in checksums(parts).items()):
        raise DamagedError("its checksum does not match")


def _or_damaged(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (MemoryError, jax.errors.JaxRuntimeError, UserError):
        # Of this machine, not of the file.
        raise
    except Exception as error:
        quiet_loose_ends()
        # Orbax and TensorStore raise everything for damaged files.
        raise DamagedError(first_line(error)) from error


def quiet_orbax() -> None:
    """Keeps Orbax from writing to stderr.

    It reports every save at INFO and WARNING through absl, where the progress line says what
    matters; and errors of its thread with a traceback, though it raises them in ours as well.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # Its reads and writes run side by side in event loops, of which the first error is raised.
    # Others may end when the loop is closed.
    if not isinstance(sys.unraisablehook, _NotOfAClosedLoop):
        sys.unraisablehook = _NotOfAClosedLoop(sys.unraisablehook)


class _NotOfAClosedLoop:
    """Says what an exception was that nobody could be told of, unless it is such an end."""

    def __init__(self, before: Callable[[Any], object]):
        self._before = before

    def __call__(self, unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            self._before(unraisable)


def quiet_loose_ends() -> None:
    """Once something has failed: keeps asyncio from telling what else failed along with it."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
