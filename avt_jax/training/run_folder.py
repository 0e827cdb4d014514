"""What a run folder says about itself: the resolved config, the classes, the versions."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from avt_jax.data.records import RecordsInfo
from avt_jax.errors import UserError
from avt_jax.host.new_files import is_partial, write_json
from avt_jax.host.output.terminal import show
from avt_jax.training.checkpoint import CHECKPOINTS, CONFIG_FILE, RUN_FILE, has_checkpoint
from avt_jax.training.checkpoint.folder import DAMAGED, is_left_behind, is_set_aside, set_aside
from avt_jax.training.checkpoint.run_files import read_config, read_facts
from avt_jax.training.run_lock import LOCK_FILE
from avt_jax.training.shards_place import SHARDS, place
from avt_jax.training.writer import BOARD_FOLDER, METRICS_FILE

_PACKAGES = ("avt_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av")

_MOST_OPTIONS = 6

CLASS_WEIGHTS = "class_weights"
"""Key in run.json."""

# What may be another when a run is continued, as regular expressions over the config's fields: how
# long it goes on and how fast, what is logged and kept, where the data lie and how they come, on
# what they are computed. Everything else is the model, its input or its targets, or would leave
# the optimiser's state without a meaning.
CHANGEABLE = (
    r"train\..*",
    r"optimizer\.(lr|min_lr|warmup_.*|weight_decay(_rules)?|layer_decay|clip_norm|momentum|b1|b2)",
    r"losses\.warmup_.*",
    r"data\.(path|train_split|balance|eval_.*|num_threads|num_workers|prefetch|max_damaged)",
    r"model\.(precision|kernels|(.*\.)?remat)",
    r"mesh\..*",
    # Only read when a run begins.
    r"init\..*",
)


def prepare(
    workdir: Path,
    config: Mapping[str, Any],
    info: RecordsInfo,
    mesh: Mesh,
    shards: str | None = None,
    class_weights: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes config.json and run.json unless the run has begun; only for who alone writes there.

    Args:
      workdir: the run's folder; made when missing.
      config: the resolved config.
      info: of the shards.
      mesh: the devices in use, to be recorded.
      shards: the folder that the config's data.path stands for; None = there are none.
      class_weights: {label set: [y]} of the loss; a run that goes on keeps them.

    Raises:
      UserError: the folder holds something else, or cannot be written.
    """
    workdir = Path(workdir)
    begun = has_checkpoint(workdir)
    make(workdir)
    facts = {
        "label_sets": {name: list(classes) for name, classes in info.label_sets.items()},
        **({"multi_label": list(info.multi_label)} if info.multi_label else {}),
        "records": {
            "frame_rate_hz": info.frame_rate_hz,
            "short_side_px": info.short_side_px,
            "jpeg_quality": info.jpeg_quality,
            "schema_version": info.schema_version,
        },
        SHARDS: place(config["data"]["path"], shards, workdir) if shards else {},
        **({CLASS_WEIGHTS: _as_lists(class_weights)} if class_weights else {}),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "git_hash": _git_hash(),
        "devices": {"platform": jax.default_backend(), "count": mesh.size},
    }
    # A run that ended before its first checkpoint has left nothing to protect.
    for name, content in ((CONFIG_FILE, config), (RUN_FILE, facts)):
        path = workdir / name
        if begun and path.is_file():
            continue
        if begun:
            say(f"{path} is missing; written anew from this command")
        elif path.is_dir() or (path.is_file() and path.stat().st_size and not _is_json(path)):
            say(f"{path} was damaged and is now {set_aside(path)}; written anew")
        # Not even a power failure leaves them without content.
        write_json(path, content, indent=1, durable=True)


def _as_lists(class_weights: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    return {name: weight_y.tolist() for name, weight_y in class_weights.items()}


def saved_class_weights(workdir: Path) -> dict[str, np.ndarray] | None:
    """The class weights that a run began with, {label set: float32 [y]}; None where it has none.

    Raises:
      UserError: they cannot be read, or are none for its classes.
    """
    if not (Path(workdir) / RUN_FILE).exists():
        return None
    facts = read_facts(workdir)
    saved = facts.get(CLASS_WEIGHTS)
    if saved is None:
        return None
    try:
        found = {name: np.array(weights, np.float32) for name, weights in saved.items()}
        fits = all(
            weight_y.shape == (len(facts["label_sets"][name]),)
            and bool((np.isfinite(weight_y) & (weight_y >= 0)).all())
            for name, weight_y in found.items()
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise UserError(
            f"{Path(workdir) / RUN_FILE} is damaged: its class_weights are no numbers for its "
            "classes; move it away, and the command that trained the run writes it anew."
        )
    return found


def make(workdir: Path) -> None:
    """Makes a run's folder, or sees that a folder that is there may become one or is one.

    Whatever a training that was killed at any moment leaves behind is accepted.

    Raises:
      UserError: the folder holds something else, or cannot be written.
    """
    try:
        if (workdir.exists() or workdir.is_symlink()) and not has_checkpoint(workdir):
            foreign = [] if workdir.is_dir() else [workdir]
            foreign = foreign or _foreign_entries(workdir)
            if foreign:
                raise UserError(
                    f"--workdir {workdir} exists and is not a run folder ({_what(foreign[0])}); "
                    "give a new or empty folder."
                )
        workdir.mkdir(parents=True, exist_ok=True)
        if not os.access(workdir, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(
            f"--workdir {workdir} cannot be used: {error.strerror or error}; give a folder that "
            "can be written."
        ) from error


def _what(path: Path) -> str:
    return f"{path.name} is {'there' if path.is_dir() else 'a file that no training wrote'}"


def _foreign_entries(workdir: Path) -> list[Path]:
    """What no training has left in a folder without a checkpoint; [] for a run's folder."""
    files = [workdir / CONFIG_FILE, workdir / RUN_FILE]
    if all(path.is_file() and _is_json(path) for path in files):
        if _is_ours(files[0]) and _is_ours(files[1]):
            return []
    foreign = []
    for path in workdir.iterdir():
        if path in files:
            ours = not _is_json(path) or _is_ours(path)
        elif path.name == CHECKPOINTS:
            ours = path.is_dir() and all(
                is_left_behind(one) or is_set_aside(one) for one in path.iterdir()
            )
        else:
            ours = path.name in _OURS or is_partial(path) or _is_aside_file(path)
        if not ours:
            foreign.append(path)
    return foreign


# Of a training, besides the two files and the checkpoints.
_OURS = (METRICS_FILE, BOARD_FOLDER, LOCK_FILE)
# What config.json has at the least, and run.json.
_FIELDS = {CONFIG_FILE: {"model", "data"}, RUN_FILE: {"label_sets", "records"}}


def _is_aside_file(path: Path) -> bool:
    return path.name.startswith(tuple(f"{name}{DAMAGED}" for name in _FIELDS))


def _is_json(path: Path) -> bool:
    """Whether a file is whole, ours or not."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return True


def _is_ours(path: Path) -> bool:
    found = json.loads(path.read_text(encoding="utf-8"))
    return isinstance(found, dict) and _FIELDS[path.name] <= found.keys()


def say(text: str) -> None:
    """Tells the user, on stderr."""
    show(f"avt: {text}", file=sys.stderr, flush=True)


def saved_config(workdir: Path) -> dict[str, Any] | None:
    """The config that the run in a folder was last started with; None where the file is gone.

    Raises:
      UserError: it cannot be read, or is of something else.
    """
    path = Path(workdir) / CONFIG_FILE
    if not path.exists():
        return None
    found = read_config(workdir)
    if not _is_ours(path):
        raise UserError(
            f"{path} is not the config of a run; use another --workdir, or move the file away: "
            "the command that trained the run writes it anew and goes on."
        )
    return found


def check_continuation(
    workdir: Path,
    saved: Mapping[str, Any],
    config: Mapping[str, Any],
    info: RecordsInfo,
    can_start_anew: Callable[[], bool],
) -> None:
    """Makes sure that a run may go on with another config.

    Args:
      workdir: the run's folder.
      saved: its config, with all fields.
      config: the config now, with all fields.
      info: of the shards now.
      can_start_anew: whether the run's weights fit the model that `config` describes.

    Raises:
      UserError: other classes, or a change of something that is not CHANGEABLE; says what to do.
    """
    classes = {name: list(names) for name, names in info.label_sets.items()}
    # One that is gone is written anew; the shapes of the arrays are checked anyway.
    is_there = (Path(workdir) / RUN_FILE).exists()
    facts = read_facts(workdir) if is_there else {}
    before = facts.get("label_sets", classes)
    several = facts.get("multi_label", []) if is_there else list(info.multi_label)
    if several != list(info.multi_label):
        raise UserError(
            f"{workdir} was trained with the multi-label sets {several}, these shards have "
            f"{list(info.multi_label)}; use another --workdir or the shards of that run."
        )
    if before != classes:
        here, there = ({k: len(v) for k, v in x.items()} for x in (classes, before))
        raise UserError(
            f"{workdir} was trained on other classes ({there}) than these shards have ({here}); "
            "use another --workdir or the shards of that run."
        )
    fixed = [change for change in differences(saved, config) if not change.may_change]
    if not fixed:
        return
    way_out = "train that in a new --workdir"
    if can_start_anew():
        way_out += f", from this run's weights with --config.init.model={shlex.quote(str(workdir))}"
    more = f" (and {len(fixed) - 1} more)" if len(fixed) > 1 else ""
    # All of them, so that the next start refuses none; of another model there are too many.
    named = fixed if len(fixed) <= _MOST_OPTIONS else fixed[:1]
    options = " ".join(f"--config.{one.name}={shlex.quote(str(one.before))}" for one in named)
    raise UserError(
        f"{workdir} holds a run with another config: {fixed[0].words()}{more}, which cannot change "
        f"while a run goes on; {way_out}, or give {options} to continue this one."
    )


@dataclass(frozen=True)
class Change:
    """A field that is another than when the run was last started.

    Attributes:
      name: such as "optimizer.lr".
      before: its value then.
      after: its value now.
    """

    name: str
    before: Any
    after: Any

    @property
    def may_change(self) -> bool:
        """Whether a run may go on with it."""
        return any(re.fullmatch(pattern, self.name) for pattern in CHANGEABLE)

    def words(self) -> str:
        """For a message."""
        return f"config.{self.name} was {self.before!r} and is now {self.after!r}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The fields in which two configs differ, in the order of the config."""
    # As they are when read back from JSON: tuples are lists.
    return _differences(json.loads(json.dumps(before)), json.loads(json.dumps(after)), "")


def _differences(before: Any, after: Any, name: str) -> list[Change]:
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if before == after else [Change(name, before, after)]
    keys = [*after, *(key for key in before if key not in after)]
    return [
        change
        for key in keys
        for change in _differences(
            before.get(key), after.get(key), f"{name}.{key}" if name else str(key)
        )
    ]


def record_changes(
    workdir: Path,
    config: Mapping[str, Any],
    changes: Sequence[Change],
    step: int,
    shards: str | None = None,
) -> None:
    """Writes down what a continued run does otherwise, and from which step on.

    Args:
      workdir: the run's folder.
      config: with which it goes on; becomes config.json.
      changes: from `differences`.
      step: optimiser steps done.
      shards: as for `prepare`.
    """
    facts = read_facts(workdir)
    kept = facts.get(SHARDS, {})
    facts[SHARDS] = place(config["data"]["path"], shards, workdir) if shards else {}
    if not changes and facts[SHARDS] == kept:
        return
    before = facts.get("changes", [])
    entries = [{"step": step, **vars(change)} for change in changes]
    # A start that ended between the two files has noted them already.
    facts["changes"] = [*before, *(entry for entry in entries if entry not in before)]
    write_json(Path(workdir) / RUN_FILE, facts, indent=1, durable=True)
    write_json(Path(workdir) / CONFIG_FILE, config, indent=1, durable=True)


def _git_hash() -> str | None:
    """The commit of the source tree this package runs from; None outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
