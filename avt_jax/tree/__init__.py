"""Model variables as flat dictionaries: {"path/to/leaf": array}.

Flat dictionaries are what the jitted step, the optimiser and the checkpoints hold: paths can be
matched with regular expressions, and calling a jitted function on them costs little.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

import jax
from flax import nnx

from avt_jax.tree.stacks import Packing, stack_layers

Flat = dict[str, Any]
T = TypeVar("T")
M = TypeVar("M", bound=nnx.Module)


def _flatten(state: nnx.State[Any, Any]) -> Flat:
    return {"/".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(state)}


def _filled(state: nnx.State[Any, Any], flat: Mapping[str, Any]) -> nnx.State[Any, Any]:
    paths = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(state)]
    strict_match(paths, flat, what="variables")
    leaves = [
        (path, leaf.replace(flat["/".join(map(str, path))]))
        for path, leaf in nnx.to_flat_state(state)
    ]
    return nnx.from_flat_state(leaves)


class Skeleton(Generic[M]):
    """A model's structure without its arrays, to take it apart and put it together again.

    Args:
      build: makes the model; called abstractly, so no array is allocated.
      frozen: {path: shape} of the parameters -> the paths of those that are not trained.
    """

    def __init__(
        self,
        build: Callable[[], M],
        frozen: Callable[[Mapping[str, Any]], Collection[str]] = lambda params: (),
    ):
        model = nnx.eval_shape(build)
        self._graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
        self._params, self._stats = states
        self._find_frozen = frozen
        self.params: dict[str, jax.ShapeDtypeStruct] = _flatten(self._params)
        self.stats: dict[str, jax.ShapeDtypeStruct] = _flatten(self._stats)

    def merge(self, params: Mapping[str, Any], stats: Mapping[str, Any]) -> M:
        """Puts parameters and batch statistics into a module.

        Args:
          params: {path: array}, flat, or stacked or packed as `packing` does it; towers of stacked
            layers run as a loop.
          stats: the same.

        Raises:
          ValueError: a path is missing or unknown; all such paths are listed.
        """
        if not self.packing.is_packed(params):
            form = (self._graphdef, self._params, self._stats)
        else:
            form, packing = self._stacked[0], self.packing
            params, stats = packing.open(params), packing.open(stats)
        graphdef, *states = form
        filled = [_filled(state, flat) for state, flat in zip(states, (params, stats), strict=True)]
        return nnx.merge(graphdef, *filled)

    def statistics(self, model: nnx.Module, *, like: Mapping[str, Any]) -> Flat:
        """A model's batch statistics, packed if the parameters that it was made of are.

        Args:
          model: from `merge`.
          like: the parameters.
        """
        stats = split(model)[1]
        return self.packing.close(stats) if self.packing.is_packed(like) else stats

    @cached_property
    def _stacked(self) -> tuple[tuple[Any, Any, Any], dict[str, int]]:
        """((structure, parameters, statistics) with stacked layers, the stacks)."""
        model = nnx.merge(self._graphdef, self._params, self._stats, copy=True)
        stacks = stack_layers(model)
        graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
        params, stats = states
        return (graphdef, params, stats), stacks

    @cached_property
    def packing(self) -> Packing:
        """How the arrays are packed for a training step."""
        return Packing(self._stacked[1], self.params, self.stats, self._find_frozen(self.params))


def split(model: nnx.Module) -> tuple[Flat, Flat]:
    """Takes a module apart into (parameters, batch statistics), both flat."""
    _, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, stats = states
    return _flatten(params), _flatten(stats)


def strict_match(expected: Sequence[str], found: Mapping[str, Any], *, what: str) -> None:
    """Checks that two sets of paths are equal.

    Raises:
      ValueError: names every missing and every unknown path.
    """
    missing = sorted(set(expected) - set(found))
    unknown = sorted(set(found) - set(expected))
    if missing or unknown:
        raise ValueError(f"{what} do not match: missing {missing}, unknown {unknown}")


def first_match(rules: Sequence[tuple[str, T]], path: str) -> T:
    """The value of the first rule whose regular expression is found in `path`.

    Raises:
      ValueError: no rule matches; end the list with (".*", ...).
    """
    for pattern, value in rules:
        if re.search(pattern, path):
            return value
    raise ValueError(f"no rule matches {path!r}; end the rules with a '.*' rule")


def parameter_count(flat: Mapping[str, Any]) -> int:
    """Number of scalars in a flat dictionary of arrays or shapes."""
    return sum(int(leaf.size) for leaf in flat.values())
