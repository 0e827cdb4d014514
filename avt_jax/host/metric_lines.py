"""The lines of a run's `metrics.jsonl`, read by whoever goes on with a run or draws its curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from avt_jax.errors import UserError


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads a run's `metrics.jsonl`.

    Args:
      path: the file; each line is {"step": int, "split": str, metric: number, ...}.

    Returns:
      Its lines in order; others, and one that was cut off while being written, are left out, and
      so is a metric that is not a number. [] without a file.

    Raises:
      UserError: the file cannot be read.
    """
    entries = map(_entry, json_lines(path))
    return [entry for entry in entries if entry]


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file that has one a line; whatever else is in it is left out.

    Raises:
      UserError: the file cannot be read.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; move it away.") from error
    # Not `splitlines`, which also ends lines where JSON's strings may go on.
    found = map(_parse, text.split("\n"))
    return [one for one in found if isinstance(one, dict)]


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _entry(found: dict[str, Any]) -> dict[str, Any] | None:
    if not isinstance(found.get("split"), str):
        return None
    if type(found.get("step")) is not int:
        return None
    values = {k: v for k, v in found.items() if type(v) in (int, float)}
    return {"step": found["step"], "split": found["split"]} | values
