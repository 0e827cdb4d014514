"""When things happen in a clip of AV-Sync: seen instants, and heard ones in a relation to them.

Time is a circle as long as the clip. So a shift moves no event out of it, and the times of the
seen events alone, as those of the heard ones alone, are distributed alike in every relation: only
both together tell it.
"""

from __future__ import annotations

import numpy as np

RELATIONS = ("together", "late", "early", "unrelated")

SHIFT_SEC = (0.3, 0.5)
"""How much later, or earlier, the sound is."""
_LEAST_GAP_SEC = 1.6
# Nearer to the seen events under some shift of up to so much, and the heard ones have a relation.
_NEAR_SEC, _FARTHEST_SHIFT_SEC = 0.15, 0.75
_MAX_EVENTS = 4
_TRIES = 1000


def place_instants(rng: np.random.Generator, clip_sec: float) -> np.ndarray:
    """Draws when a thing acts.

    Args:
      rng: source of number, gaps and phase.
      clip_sec: length of the clip, >= 2 s.

    Returns:
      [n] float64 seconds in [0, clip_sec), in order; on the circle 1.6 s or more apart.
    """
    most = min(int(clip_sec / _LEAST_GAP_SEC), _MAX_EVENTS)
    number = int(rng.integers(max(1, most - 1), most + 1))
    spare_sec = clip_sec - number * _LEAST_GAP_SEC
    gaps = _LEAST_GAP_SEC + spare_sec * rng.dirichlet(np.ones(number))
    return np.sort((rng.uniform(0, clip_sec) + np.cumsum(gaps)) % clip_sec)


def heard_instants(
    relation: str, seen_n: np.ndarray, rng: np.random.Generator, clip_sec: float
) -> np.ndarray:
    """Draws when the thing that is seen is heard.

    Args:
      relation: one of RELATIONS.
      seen_n: [n] float seconds, as `place_instants` gives them.
      rng: source of the shift.
      clip_sec: length of the clip.

    Returns:
      [n] float64 seconds in [0, clip_sec), in order, in the rhythm of the seen ones.

    Raises:
      ValueError: `relation` is not one of RELATIONS.
    """
    if relation not in RELATIONS:
        raise ValueError(f"relation must be one of {RELATIONS}, got {relation!r}")
    shift_sec = rng.uniform(*SHIFT_SEC)
    if relation == "unrelated":
        shift_sec = _far_shift(seen_n, rng, clip_sec)
    sign = {"together": 0, "early": -1}.get(relation, 1)
    return np.sort((seen_n + sign * shift_sec) % clip_sec)


def _far_shift(seen_n: np.ndarray, rng: np.random.Generator, clip_sec: float) -> float:
    """A shift after which no small one brings sound and picture together again.

    The rhythm is kept: with other gaps, or another number, that could not be taken for those of
    what is seen, the sound alone would tell that it is unrelated.
    """
    for _ in range(_TRIES):
        shift_sec = rng.uniform(0, clip_sec)
        if not _related(seen_n, np.sort((seen_n + shift_sec) % clip_sec), clip_sec):
            return float(shift_sec)
    raise ValueError(f"no unrelated instants found in {clip_sec} s")


def _related(seen_n: np.ndarray, heard_n: np.ndarray, clip_sec: float) -> bool:
    """Whether a small shift brings each heard instant near a seen one; there are as many."""
    for turn in range(len(seen_n)):
        shifts = np.roll(heard_n, turn) - seen_n
        shifts = (shifts + clip_sec / 2) % clip_sec - clip_sec / 2
        if np.ptp(shifts) < 2 * _NEAR_SEC and abs(shifts.mean()) < _FARTHEST_SHIFT_SEC:
            return True
    return False
