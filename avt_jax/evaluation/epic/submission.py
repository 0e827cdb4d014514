"""What the challenge's server takes: scores of every segment, as JSON, alone or in a zip file.

Source: create_submission.py of epic-kitchens/C1-Action-Recognition, version 0.2. It gives verb and
noun scores; the best 100 actions are added to them.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from avt_jax.errors import UserError
from avt_jax.evaluation.classification import top_combinations
from avt_jax.host.new_files import replacing, replacing_path

VERSION, CHALLENGE = "0.2", "action_recognition"
CLASSES = {"verb": 97, "noun": 300}
MOST_ACTIONS = 100
# In a zip file the server looks for this name.
ZIPPED = "test.json"
# Logarithms stay finite where a probability is 0 in float32.
_LEAST_P = 1e-38
_AT_ONCE = 256


def check_path(path: Path) -> None:
    """Checks the name of the file.

    Raises:
      UserError: it ends in neither .json nor .zip, or its folder does not exist.
    """
    if path.suffix not in (".json", ".zip"):
        raise UserError(f"--epic-submission {path}: give a name that ends in .json or .zip.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--epic-submission {path}: its folder does not exist; create it first.")


def check_levels(levels: Sequence[int]) -> None:
    """Checks the supervision levels.

    Raises:
      UserError: there are not three from 0 to 5.
    """
    if len(levels) != 3 or not all(0 <= level <= 5 for level in levels):
        given = " ".join(map(str, levels)) or "nothing"
        raise UserError(
            f"--sls {given}: give three levels from 0 to 5, of pretraining, training labels and "
            "training data."
        )


def write(
    path: Path,
    narration_ids: Sequence[str],
    verb_nv: np.ndarray,
    noun_nw: np.ndarray,
    levels: Sequence[int],
) -> None:
    """Writes a submission, segment by segment; the file appears when it is complete.

    Args:
      path: .json, or .zip with a `test.json` in it; an older file is replaced.
      narration_ids: of each clip.
      verb_nv: [n, 97] float probabilities.
      noun_nw: [n, 300] float probabilities.
      levels: supervision of pretraining, training labels, training data (sls_pt, sls_tl, sls_td).

    Raises:
      UserError: not as many classes as the challenge has, a segment twice, a number that is not
        finite, or the file cannot be written.
    """
    check_path(path)
    check_levels(levels)
    given = {"verb": verb_nv, "noun": noun_nw}
    for name, number in CLASSES.items():
        if given[name].shape[1] != number:
            raise UserError(
                f"the challenge has {number} classes of {name}, the run has "
                f"{given[name].shape[1]}; train on shards with the official class lists."
            )
        if not np.isfinite(given[name]).all():
            raise UserError(f"a probability of {name} is not finite; use another checkpoint.")
    if len(set(narration_ids)) != len(narration_ids):
        raise UserError("two clips are the same segment; give each segment once.")
    about = dict(zip(("sls_pt", "sls_tl", "sls_td"), map(int, levels), strict=True))
    head = json.dumps({"version": VERSION, "challenge": CHALLENGE, **about})
    with _opened(path) as file:
        file.write(f'{head[:-1]}, "results": {{')
        between = ""
        for first in range(0, len(narration_ids), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            for name, scores in zip(
                narration_ids[some], _scores(verb_nv[some], noun_nw[some]), strict=True
            ):
                file.write(f"{between}\n{json.dumps(name)}: {json.dumps(scores, allow_nan=False)}")
                between = ","
        file.write("\n}}\n")


def _scores(verb_bv: np.ndarray, noun_bw: np.ndarray) -> Iterator[dict[str, dict[str, float]]]:
    """{"verb", "noun", "action": {class: score}} of each clip, best actions first.

    Scores are logarithms of probabilities: the server may take a softmax of them, which gives the
    probabilities again, and a product is a sum.
    """
    pairs, _ = top_combinations([verb_bv, noun_bw], MOST_ACTIONS)
    logs = [np.log(np.maximum(p.astype(np.float64), _LEAST_P)) for p in (verb_bv, noun_bw)]
    for b in range(len(verb_bv)):
        action = {f"{v},{w}": _number(logs[0][b, v] + logs[1][b, w]) for v, w in pairs[b].tolist()}
        yield {
            "verb": {str(v): _number(score) for v, score in enumerate(logs[0][b])},
            "noun": {str(w): _number(score) for w, score in enumerate(logs[1][b])},
            "action": action,
        }


def _number(value: float) -> float:
    # As many digits as a float32 has.
    return float(f"{value:.8g}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    if path.suffix == ".json":
        with replacing(path) as file:
            yield file
        return
    with (
        replacing_path(path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=5) as folder,
        folder.open(ZIPPED, "w", force_zip64=True) as raw,
        io.TextIOWrapper(raw, "utf-8") as file,
    ):
        yield file
