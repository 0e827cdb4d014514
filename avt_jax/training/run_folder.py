"""What a run folder says about itself: the resolved config, the classes, the versions."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from avt_jax.data.records import RecordsInfo
from avt_jax.errors import UserError, first_line
from avt_jax.host.new_files import write_json
from avt_jax.training.checkpoint import CONFIG_FILE, RUN_FILE, has_checkpoint

_PACKAGES = ("avt_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av")

# What may be another when a run is continued, as regular expressions over the config's fields: how
# long it goes on and how fast, what is logged and kept, where the data lie and how they come, on
# what they are computed. Everything else is the model, its input or its targets, or would leave
# the optimiser's state without a meaning.
CHANGEABLE = (
    r"train\..*",
    r"optimizer\.(lr|min_lr|warmup_.*|weight_decay(_rules)?|layer_decay|clip_norm|momentum|b1|b2)",
    r"losses\.warmup_.*",
    r"data\.(path|train_split|eval_.*|num_threads|num_workers|prefetch|max_damaged)",
    r"model\.(precision|kernels|(.*\.)?remat)",
    r"mesh\..*",
    # Only read when a run begins.
    r"init\..*",
)


def prepare(workdir: Path, config: Mapping[str, Any], info: RecordsInfo, mesh: Mesh) -> None:
    """Writes config.json and run.json unless the run has begun.

    Args:
      workdir: the run's folder; made when missing.
      config: the resolved config.
      info: of the shards.
      mesh: the devices in use, to be recorded.

    Raises:
      UserError: the folder holds something else.
    """
    workdir = Path(workdir)
    files = (workdir / CONFIG_FILE, workdir / RUN_FILE)
    has_files = all(file.is_file() for file in files)
    if has_files and has_checkpoint(workdir):
        return
    # A run that ended before its first checkpoint has left nothing to protect.
    if workdir.exists() and not has_files and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(
            f"--workdir {workdir} exists and is not a run folder; give a new or empty folder."
        )
    facts = {
        "label_sets": {name: list(classes) for name, classes in info.label_sets.items()},
        "records": {
            "frame_rate_hz": info.frame_rate_hz,
            "short_side_px": info.short_side_px,
            "jpeg_quality": info.jpeg_quality,
            "schema_version": info.schema_version,
        },
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "git_hash": _git_hash(),
        "devices": {"platform": jax.default_backend(), "count": mesh.size},
    }
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(files[0], config, indent=1)
    write_json(files[1], facts, indent=1)


def read_config(workdir: Path) -> dict[str, Any]:
    """The config that the run in a folder was last started with.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    return _read_json(Path(workdir) / CONFIG_FILE)


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
    before = _read_json(Path(workdir) / RUN_FILE).get("label_sets")
    if before != classes:
        here, there = ({k: len(v) for k, v in (x or {}).items()} for x in (classes, before))
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
    raise UserError(
        f"{workdir} holds a run with another config: {fixed[0].words()}{more}, which cannot change "
        f"while a run goes on; {way_out}, or give "
        f"--config.{fixed[0].name}={shlex.quote(str(fixed[0].before))} to continue this one."
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
    workdir: Path, config: Mapping[str, Any], changes: Sequence[Change], step: int
) -> None:
    """Writes down what a continued run does otherwise, and from which step on.

    Args:
      workdir: the run's folder.
      config: with which it goes on; becomes config.json.
      changes: from `differences`.
      step: optimiser steps done.
    """
    if not changes:
        return
    facts = _read_json(Path(workdir) / RUN_FILE)
    entries = [{"step": step, **vars(change)} for change in changes]
    facts["changes"] = [*facts.get("changes", []), *entries]
    write_json(Path(workdir) / RUN_FILE, facts, indent=1)
    write_json(Path(workdir) / CONFIG_FILE, config, indent=1)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        reason = "it is not an object"
    except (OSError, ValueError) as error:
        reason = first_line(error)
    raise UserError(f"{path} cannot be read ({reason}); use another --workdir.")


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
