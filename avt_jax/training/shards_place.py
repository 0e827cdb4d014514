"""Where a run's shards lie: noted in its run.json, so that they are found from any other folder.

A path is looked for as it was given, relative to the current folder; where it led when the run was
last started; and from the run's folder on, for a run that was moved together with its shards.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from avt_jax.data.records.generated import is_generated
from avt_jax.data.records.remote import is_remote
from avt_jax.errors import UserError
from avt_jax.training.checkpoint.run_files import RUN_FILE, read_facts

SHARDS = "shards"
_GIVEN, _ABSOLUTE, _FROM_RUN = "given", "absolute", "from_run"
# Every shard folder has one.
_FILE = "dataset_info.json"


def place(given: str, found: str, run_dir: Path) -> dict[str, str]:
    """What run.json keeps of a shard folder; {} of what is none on a file system.

    Args:
      given: `config.data.path`.
      found: the folder that it stands for now.
      run_dir: the run's folder, which exists.
    """
    if is_generated(given) or is_remote(given):
        return {}
    # A name such as shards may be a link, and stays one.
    parent, name = os.path.split(os.path.abspath(found))
    real = os.path.join(os.path.realpath(parent), name)
    return {
        _GIVEN: given,
        _ABSOLUTE: os.path.abspath(found),
        _FROM_RUN: os.path.relpath(real, os.path.realpath(run_dir)),
    }


def find(given: str, run_dir: Path | None, *, origin: str, option: str) -> str:
    """The shard folder that a `config.data.path` stands for.

    Args:
      given: the path; where it is not the run's own, it stands for itself alone.
      run_dir: the run's folder, which need not exist; None = there is none.
      origin: for the message, who says that the shards are there.
      option: for the message, with which the user gives another place.

    Returns:
      The first place with shards, or one that may tell what is wrong with it.

    Raises:
      UserError: there is no folder at any of the places.
    """
    if is_generated(given) or is_remote(given):
        return given
    places = [given]
    kept = _kept(run_dir) if run_dir else {}
    if run_dir and kept.get(_GIVEN) == given:
        from_run = os.path.normpath(os.path.join(os.path.realpath(run_dir), kept[_FROM_RUN]))
        places += [kept[_ABSOLUTE], from_run]
    for is_there in (lambda one: os.path.isfile(os.path.join(one, _FILE)), os.path.isdir):
        for one in places:
            if is_there(one):
                return one
    others = [one for one in dict.fromkeys(places[1:]) if one != os.path.abspath(given)]
    raise UserError(
        f"{origin} is {given}, and there is no shard folder at {' or at '.join([given, *others])}; "
        f"give the one that 'avt extract' made with {option}."
    )


def _kept(run_dir: Path) -> dict[str, Any]:
    """What run.json says; {} where it says nothing that can be used."""
    if not (run_dir / RUN_FILE).is_file():
        return {}
    try:
        found = read_facts(run_dir).get(SHARDS)
    except UserError:  # whoever needs the other facts says what is wrong
        return {}
    names = (_GIVEN, _ABSOLUTE, _FROM_RUN)
    if not isinstance(found, dict):
        return {}
    texts = [found.get(name) for name in names]
    # It may be somebody else's file: nothing that moves a terminal's cursor.
    usable = all(isinstance(text, str) and text.isprintable() for text in texts)
    return dict(found) if usable else {}
