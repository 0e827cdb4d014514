"""Optax transformations over a model's parameters in any of the forms of `tree.stacks`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from avt_jax.tree.stacks import Packing


def scale_each(factors: Mapping[str, float], packing: Packing) -> optax.GradientTransformation:
    """Multiplies each parameter's update by a number: {flat path: number}."""

    def scale(updates: Any, params: Any) -> Any:
        del params
        return {
            path: update * packing.spread(factors, path, update.ndim)
            for path, update in updates.items()
        }

    return optax.stateless(scale)


def decay_each(
    weight_decay: float, factors: Mapping[str, float], packing: Packing
) -> optax.GradientTransformation:
    """Adds `weight_decay` times a number, {flat path: number}, times each parameter."""

    def decay(updates: Any, params: Any) -> Any:
        decayed = dict(updates)
        for path, update in updates.items():
            factor = weight_decay * packing.spread(factors, path, update.ndim)
            if np.any(factor):
                decayed[path] = update + factor * params[path]
        return decayed

    # The state of Optax's own decay under a mask: checkpoints from before these rules are read.
    return optax.GradientTransformation(
        lambda params: optax.MaskedState(optax.EmptyState()),
        lambda updates, state, params=None: (decay(updates, params), state),
    )


def trained_only(
    inner: optax.GradientTransformation, packing: Packing
) -> optax.GradientTransformation:
    """The same for what is trained: the initial state has nothing of what is frozen."""
    return optax.GradientTransformation(
        lambda params: inner.init(packing.divide(params)[0]), inner.update
    )


def for_each_layer(
    inner: optax.GradientTransformation, packing: Packing, begins: Mapping[str, int]
) -> optax.GradientTransformation:
    """The same for layers in stacks as for single ones.

    For a transformation that looks at a parameter as a whole, and would take a tower's for one.

    Args:
      inner: treats every parameter by itself; of its state only a count of steps is no dictionary.
      packing: of the parameters.
      begins: {flat path: count with which it begins, and has the count 0}; what is missing: 0.
    """

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        packed = packing.is_packed(grads)
        open_, close = (packing.open, packing.close) if packed else (dict, dict)
        opened, params, state = open_(grads), open_(params), _on_flat(open_, state)
        groups = defaultdict(list)
        for path in opened:
            layers = packing.layers(path)
            each = [begins.get(one, 0) for one in layers or [path]]
            starts = tuple(each[:1] if len(set(each)) == 1 else each)
            groups[len(layers or ()), starts].append(path)
        updates: dict[str, Any] = {}
        states = []
        for (depth, starts), paths in groups.items():
            part = _counted_from(starts, _only(state, paths))
            axes = jax.tree.map(
                lambda n: 0 if _is_flat(n) or n.ndim else None, part, is_leaf=_is_flat
            )
            given = ({p: opened[p] for p in paths}, part, {p: params[p] for p in paths})
            apply = inner.update
            if depth:
                apply = jax.vmap(apply, in_axes=(0, axes, 0), out_axes=(0, axes))
            found, new = apply(*given)
            updates |= found
            states.append(new)
        new_state = _on_flat(close, _joined(states))
        return close(updates), _with_counts(new_state, state)

    return optax.GradientTransformation(inner.init, update)


def _counted_from(starts: tuple[int, ...], state: Any) -> Any:
    """With counts that are 0 until these; one for each layer where they are several."""
    if not any(starts):
        return state
    start = np.array(starts, np.int32) if len(starts) > 1 else starts[0]
    return jax.tree.map(
        lambda n: n if _is_flat(n) else jnp.maximum(n - start, 0), state, is_leaf=_is_flat
    )


def _with_counts(state: Any, before: Any) -> Any:
    """With the counts that follow on those before."""
    return jax.tree.map(
        lambda new, old: new if _is_flat(new) else optax.safe_increment(old),
        state,
        before,
        is_leaf=_is_flat,
    )


def _is_flat(node: Any) -> bool:
    return isinstance(node, dict)


def _on_flat(function: Callable[[Mapping[str, Any]], dict[str, Any]], state: Any) -> Any:
    return jax.tree.map(lambda n: function(n) if _is_flat(n) else n, state, is_leaf=_is_flat)


def _only(state: Any, paths: list[str]) -> Any:
    def chosen(node: Any) -> Any:
        return {path: node[path] for path in paths} if _is_flat(node) else node

    return jax.tree.map(chosen, state, is_leaf=_is_flat)


def _joined(states: list[Any]) -> Any:
    def join(first: Any, *others: Any) -> Any:
        if not _is_flat(first):
            return first
        for other in others:
            first = first | other
        return first

    return jax.tree.map(join, *states, is_leaf=_is_flat)
