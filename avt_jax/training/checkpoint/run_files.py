"""The two files that say what a run is: its config, and the facts that its model was made for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from avt_jax.errors import UserError, first_line
from avt_jax.training.checkpoint.folder import has_checkpoint

CONFIG_FILE, RUN_FILE = "config.json", "run.json"


class DamagedFile(UserError):
    """A file of a run folder that is there and is not what a training wrote."""


def check_there(run_dir: Path) -> None:
    """Raises a UserError where a folder is not one of a run."""
    for name in (CONFIG_FILE, RUN_FILE):
        try:
            (run_dir / name).stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            advice = "give the folder that 'avt train --workdir' wrote"
            if has_checkpoint(run_dir):
                advice = "the command that trained the run writes it anew and goes on"
            raise UserError(
                f"{run_dir} is not a run folder: {name} is missing; {advice}."
            ) from error
        except OSError as error:
            raise _cannot_read(run_dir / name, error) from error


def read_config(run_dir: Path) -> dict[str, Any]:
    """The config that the run in a folder was last started with.

    Raises:
      DamagedFile: it is not what a training wrote.
      UserError: it cannot be read.
    """
    return _read_object(run_dir, CONFIG_FILE)


def read_facts(run_dir: Path) -> dict[str, Any]:
    """{"label_sets": {label set: class names}, "records": {name: value}, ...} of a run.

    Raises:
      DamagedFile: it is not what a training wrote.
      UserError: it cannot be read.
    """
    facts = _read_object(run_dir, RUN_FILE)
    sets = facts.get("label_sets")
    known = isinstance(sets, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in sets.values()
    )
    if not known or not isinstance(facts.get("records"), dict):
        raise _damaged(run_dir / RUN_FILE, "label_sets or records are missing")
    several = facts.get("multi_label", [])
    known = isinstance(several, list) and all(isinstance(name, str) for name in several)
    if not known or set(several) - facts["label_sets"].keys():
        raise _damaged(run_dir / RUN_FILE, "multi_label is no list of label sets")
    if not isinstance(facts.get("changes", []), list):
        raise _damaged(run_dir / RUN_FILE, "changes is not a list")
    return facts


def _read_object(run_dir: Path, name: str) -> dict[str, Any]:
    path = Path(run_dir) / name
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, first_line(error)) from error
    except IsADirectoryError as error:
        raise _damaged(path, "it is a folder") from error
    except OSError as error:
        raise _cannot_read(path, error) from error
    if not isinstance(found, dict):
        raise _damaged(path, "it is not an object")
    return found


def _cannot_read(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path} cannot be read ({error.strerror or error}); use another --workdir, or make it "
        "readable."
    )


def _damaged(path: Path, reason: str) -> DamagedFile:
    return DamagedFile(
        f"{path} cannot be read ({reason}); use another --workdir, or move the file away: the "
        "command that trained the run writes it anew and goes on."
    )
