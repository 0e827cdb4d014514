"""What a run folder says about itself: the resolved config, the classes, the versions."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from avt_jax.data.records import RecordsInfo
from avt_jax.errors import UserError
from avt_jax.training.checkpoint import CONFIG_FILE, RUN_FILE

_PACKAGES = ("avt_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av")
# Fields that may change between two starts of one run: they do not touch what is computed, only
# how long it goes on, what is kept and how fast data comes.
_FREE = (
    ("train", ("log_every_steps", "checkpoint_every_steps", "keep_last", "keep_best")),
    ("data", ("num_threads", "num_workers", "prefetch", "path")),
    ("mesh", ("data", "fsdp", "rules")),
)


def prepare(workdir: Path, config: Mapping[str, Any], info: RecordsInfo, mesh: Mesh) -> None:
    """Writes config.json and run.json, or checks that the run there is the same one.

    Args:
      workdir: the run's folder; made when missing.
      config: the resolved config.
      info: of the shards.
      mesh: the devices in use, to be recorded.

    Raises:
      UserError: the folder holds something else, a run with another config, or other classes.
    """
    workdir = Path(workdir)
    config = json.loads(json.dumps(config))  # tuples become lists, as they do when read back
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
    files = (workdir / CONFIG_FILE, workdir / RUN_FILE)
    if all(file.is_file() for file in files):
        _check_same(workdir, config, facts)
        return
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(
            f"--workdir {workdir} exists and is not a run folder; give a new or empty folder."
        )
    workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
        for file, content in zip(files, (config, facts), strict=True):
            part = file.with_suffix(".part")
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            os.replace(part, file)


def _check_same(workdir: Path, config: dict[str, Any], facts: dict[str, Any]) -> None:
    saved = json.loads((workdir / RUN_FILE).read_text(encoding="utf-8"))
    if saved["label_sets"] != facts["label_sets"]:
        here = {name: len(classes) for name, classes in facts["label_sets"].items()}
        there = {name: len(classes) for name, classes in saved["label_sets"].items()}
        raise UserError(
            f"{workdir} was trained on other classes ({there}) than these shards have ({here}); "
            "use another --workdir or the shards of that run."
        )
    saved_config = json.loads((workdir / CONFIG_FILE).read_text(encoding="utf-8"))
    changed = sorted(_differences(_fixed(saved_config), _fixed(config)))
    if changed:
        name, before, now = changed[0]
        raise UserError(
            f"{workdir} holds a run with another config: {name} was {before} and is now {now}; "
            "use another --workdir, or the same config to continue that run."
        )


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    config = {
        name: dict(block) if isinstance(block, dict) else block for name, block in config.items()
    }
    for block, fields in _FREE:
        for field in fields:
            config.get(block, {}).pop(field, None)
    return config


def _differences(before: Any, now: Any, name: str = "config") -> list[tuple[str, str, str]]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            found
            for key in before.keys() | now.keys()
            for found in _differences(before.get(key), now.get(key), f"{name}.{key}")
        ]
    return [] if before == now else [(name, repr(before), repr(now))]


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
