"""Declarative name tables: from official weights to ours, every leaf on both sides accounted for.

A table is a list of rules, one for each kind of array. An official name that no rule knows, a leaf
of ours that nothing fills and a shape that does not fit are errors, and all of them are listed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from avt_jax.errors import UserError

Transform = Callable[[np.ndarray], np.ndarray]
# {path of ours: array}, and the shapes that a model has there.
Variables = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]
_MOST_LISTED = 12


@dataclass(frozen=True)
class Rule:
    """Where one kind of official array goes.

    Attributes:
      source: regular expression of the whole official name.
      target: path of ours, with the groups of `source` as in `re.sub` and dots for slashes; None
        leaves the array out on purpose.
      transform: from the official layout to ours; ValueError where the layout is another.
      part: (i, n): this is the i-th of n arrays joined along the last axis of the target.
    """

    source: str
    target: str | None
    transform: Transform = np.asarray
    part: tuple[int, int] = (0, 1)


def convert(
    rules: Sequence[Rule],
    state_dict: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Sends every official array through the first rule that knows its name.

    Args:
      rules: the model's table.
      state_dict: {official name: array}.
      shapes: {path of ours: shape}, all leaves of the model.

    Returns:
      (arrays, left_out): {path of ours: array} for every path in `shapes`, in the official dtypes;
      the official names that a rule leaves out on purpose.

    Raises:
      UserError: names without a rule, leaves that nothing fills, shapes that do not fit; lists all
        three.
    """
    found: dict[str, list[np.ndarray | None]] = {}
    left_out, unknown, misfits = [], [], []
    for name, array in state_dict.items():
        rule, path = place(rules, name)
        if rule is None or (path is not None and path not in shapes):
            unknown.append(name)
            continue
        if path is None:
            left_out.append(name)
            continue
        index, count = rule.part
        pieces = found.setdefault(path, [None] * count)
        if pieces[index] is not None:
            unknown.append(f"{name} (a second one for {path})")
            continue
        piece = pieces[index] = _transformed(rule, array)
        want = tuple(shapes[path])
        if count > 1:
            want = (*want[:-1], want[-1] // count)
        if piece.shape != want:
            misfits.append(f"{name} {np.shape(array)} for {path} {want}")
    missing = [path for path in shapes if any(piece is None for piece in found.get(path, [None]))]
    check_complete(missing, unknown, misfits)
    whole = {path: [piece for piece in found[path] if piece is not None] for path in shapes}
    return {
        path: np.concatenate(pieces, -1) if len(pieces) > 1 else pieces[0]
        for path, pieces in whole.items()
    }, left_out


def _transformed(rule: Rule, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    try:
        if array.dtype.kind in "OSU":
            raise ValueError(f"expected numbers, got {array.dtype}")
        return rule.transform(array)
    except ValueError:
        return np.empty(0)  # of no shape that a leaf has: reported as a misfit


def place(rules: Sequence[Rule], name: str) -> tuple[Rule | None, str | None]:
    """(rule, path) of an official name; no rule: unknown; no path: left out on purpose."""
    for rule in rules:
        match = re.fullmatch(rule.source, name)
        if match:
            path = None if rule.target is None else match.expand(rule.target).replace(".", "/")
            return rule, path
    return None, None


def check_complete(missing: list[str], unknown: list[str], misfits: list[str]) -> None:
    """Complains unless all three lists are empty.

    Args:
      missing: paths of ours that nothing fills.
      unknown: names that have no place.
      misfits: names with both shapes.

    Raises:
      UserError: lists them, the first dozen of each.
    """
    lists = {
        "nothing fills": missing,
        "no place for": unknown,
        "wrong shape": misfits,
    }
    if any(lists.values()):
        parts = [
            f"{title} {', '.join(names[:_MOST_LISTED])}"
            + (f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else "")
            for title, names in lists.items()
            if names
        ]
        raise UserError(
            f"the weights do not fit the model: {'; '.join(parts)}; check the kind of model and "
            "its sizes."
        )


def first_axis(state_dict: Mapping[str, np.ndarray], *names: str) -> int | None:
    """Size of the first axis of the first of `names` that is there; None when none is.

    It is the number of classes of a head, say. What has no axes is a misfit and told elsewhere.
    """
    return next((len(state_dict[n]) for n in names if np.ndim(state_dict.get(n, 0))), None)


def token_count(state_dict: Mapping[str, np.ndarray], *names: str) -> int | None:
    """n of the first of `names` that is there and has the shape [1, n, d]; None when none has."""
    shapes = (np.shape(state_dict[name]) for name in names if name in state_dict)
    return next((shape[1] for shape in shapes if len(shape) == 3), None)


def norm_rules(source: str, target: str) -> list[Rule]:
    """LayerNorm or BatchNorm of PyTorch: weight and bias.

    Args:
      source: regular expression of the module's name.
      target: its path template.
    """
    return [
        Rule(rf"{source}\.weight", f"{target}.scale", vector),
        Rule(rf"{source}\.bias", f"{target}.bias", vector),
    ]


def dense_rules(source: str, target: str, part: tuple[int, int] = (0, 1)) -> list[Rule]:
    """Linear layer of PyTorch (or a convolution of size 1): weight and bias."""
    return [
        Rule(rf"{source}\.weight", f"{target}.kernel", dense, part),
        Rule(rf"{source}\.bias", f"{target}.bias", vector, part),
    ]


def vector(array: np.ndarray) -> np.ndarray:
    """[n] as it is."""
    if array.ndim != 1:
        raise ValueError(f"expected one axis, got {array.shape}")
    return array


def dense(array: np.ndarray) -> np.ndarray:
    """[out, in] or a convolution [out, in, 1, ...] of size 1 to [in, out]."""
    if array.ndim < 2 or any(size != 1 for size in array.shape[2:]):
        raise ValueError(f"expected [out, in], got {array.shape}")
    return array.reshape(array.shape[:2]).T


def block_count(state_dict: Mapping[str, np.ndarray], pattern: str) -> int:
    """How many blocks there are: one more than the highest number that `pattern`'s group finds."""
    found = (re.match(pattern, name) for name in state_dict)
    # A name may claim any number; there are not more blocks than arrays.
    count = 1 + max((int(match[1]) for match in found if match), default=-1)
    return min(count, len(state_dict))


def ratio(hidden: int, dim: int) -> float:
    """The `mlp_ratio` for which `int(dim * mlp_ratio)` is `hidden`."""
    exact = hidden / dim
    return exact if int(dim * exact) == hidden else float(np.nextafter(exact, np.inf))
