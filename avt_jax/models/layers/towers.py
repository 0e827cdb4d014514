"""Towers of equal layers: how they are made, and how they are run.

A tower is a list of layers, or a `LayerStack` of them inside a training step; see
`avt_jax.tree.stacks`. A list is unrolled, a stack is a loop; both give the same numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from avt_jax.models.layers import TransformerBlock
from avt_jax.settings import setting
from avt_jax.tree.rngs import CountedRngs
from avt_jax.tree.stacks import LayerStack

Tower = nnx.List[Any] | LayerStack
# Calls a layer on its inputs, with all else already given.
Call = Callable[..., Any]

# What the backward pass computes again rather than keep. "attention" is the layers' own affair.
REMAT = ("none", "attention", "blocks", "full")
_OF_BLOCKS = ("blocks", "full")


def remat_setting() -> Any:
    """The field `remat` of a config block with towers."""
    return setting(
        "none",
        "what the backward pass computes again instead of keeping it. none: nothing; attention: "
        "queries, keys, values and what attention makes of them, and the depthwise convolution in "
        "its place; blocks: all but each block's input; full: all but the tower's input, which "
        "costs a second pass through the tower",
        choices=REMAT,
    )


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Rates that grow linearly from 0 to `rate` over `depth` blocks."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


def transformer_blocks(
    depth: int,
    dim: int,
    num_heads: int,
    *,
    drop_path: float = 0.0,
    block: type[TransformerBlock] = TransformerBlock,
    **options: Any,
) -> nnx.List[TransformerBlock]:
    """Transformer blocks with a growing drop path.

    Args:
      depth: how many.
      dim: width.
      num_heads: attention heads.
      drop_path: rate of the last block.
      block: their class.
      options: see `TransformerBlock`.
    """
    return nnx.List(
        [
            block(dim, num_heads, drop_path=rate, **options)
            for rate in drop_path_rates(drop_path, depth)
        ]
    )


def run_tower(
    tower: Tower,
    x: jax.Array,
    *,
    train: bool,
    rngs: nnx.Rngs | None,
    remat: str = "none",
    span: tuple[int, int] | None = None,
) -> jax.Array:
    """A value through all layers of one tower; arguments as those of `run_towers`."""
    return run_towers(
        lambda calls, x: calls[0](x), [tower], x, train=train, rngs=rngs, remat=remat, span=span
    )


def run_towers(
    layer: Callable[[list[Call], Any], Any],
    towers: Sequence[Tower],
    carry: Any,
    *,
    train: bool,
    rngs: nnx.Rngs | None,
    remat: str = "none",
    span: tuple[int, int] | None = None,
) -> Any:
    """Carries values through the layers of several towers, side by side.

    Args:
      layer: (one call for each tower, carry) -> carry, of the same shapes and types. A call takes
        what its layer takes.
      towers: of equal depth.
      carry: pytree of arrays.
      train: use drop path and batch statistics.
      rngs: stream "dropout"; every layer draws from a key of its own.
      remat: see `remat_setting`.
      span: (first layer, the one after the last); None = all.

    Returns:
      The last layer's carry. Running statistics in the towers are updated.
    """
    start, stop = span or (0, len(towers[0]))
    if start == stop:
        return carry
    rates = _rates(towers, start, stop)
    keys = None
    if train and rngs is not None and any(any(row) for row in rates):
        keys = jax.random.split(rngs.dropout(), stop - start)
    lists = [tower for tower in towers if not isinstance(tower, LayerStack)]
    if lists and remat not in _OF_BLOCKS:
        for i in range(start, stop):
            key = None if keys is None else keys[i - start]
            carry = layer(_calls([tower[i] for tower in lists], train, key, remat), carry)
        return carry
    run = _unrolled if lists else _in_a_loop
    parts = [_taken_apart(tower, start, stop) for tower in towers]
    run = functools.partial(run, layer, [graphdefs for graphdefs, _ in parts], train, remat, rates)
    if remat == "full":
        run = jax.checkpoint(run)
    carry, stats = run([states for _, states in parts], carry, keys)
    for tower, new in zip(towers, stats, strict=True):
        _update(tower, start, stop, new)
    return carry


def _rates(towers: Sequence[Tower], start: int, stop: int) -> list[tuple[float, ...]]:
    """The drop path rates of each layer, one for each tower."""
    rows = [
        tower.drop_path_rates
        if isinstance(tower, LayerStack)
        else tuple(float(block.drop_path) for block in tower)
        for tower in towers
    ]
    return list(zip(*rows, strict=True))[start:stop]


def _calls(
    blocks: Sequence[Any],
    train: bool,
    key: jax.Array | None,
    remat: str,
    rates: Sequence[Any] | None = None,
) -> list[Call]:
    rngs = None if key is None else CountedRngs(key)
    given = [None] * len(blocks) if rates is None else rates
    return [
        functools.partial(block, train=train, rngs=rngs, rate=rate, remat=remat)
        for block, rate in zip(blocks, given, strict=True)
    ]


# (structure of each layer, (parameters, statistics) of each layer), or of a stack with one of each.
_Parts = tuple[list[Any], list[tuple[Any, Any]]]


def _taken_apart(tower: Tower, start: int, stop: int) -> _Parts:
    blocks = [tower.each] if isinstance(tower, LayerStack) else list(tower)[start:stop]
    graphdefs, states = [], []
    for block in blocks:
        graphdef, *state = nnx.split(block, nnx.Param, nnx.BatchStat)
        graphdefs.append(graphdef)
        states.append((state[0], state[1]))
    if isinstance(tower, LayerStack) and (start, stop) != (0, len(tower)):
        states = jax.tree.map(lambda x: x[start:stop], states)
    return graphdefs, states


def _one_layer(
    layer: Callable[[list[Call], Any], Any],
    graphdefs: Sequence[Any],
    train: bool,
    remat: str,
    rates: Sequence[Any] | None,
    states: Sequence[tuple[Any, Any]],
    carry: Any,
    key: jax.Array | None,
) -> tuple[Any, list[Any]]:
    """(carry, new running statistics) of the layers at one height: a pure function of arrays."""
    blocks = [nnx.merge(one, *state) for one, state in zip(graphdefs, states, strict=True)]
    carry = layer(_calls(blocks, train, key, remat, rates), carry)
    return carry, [nnx.state(block, nnx.BatchStat) for block in blocks]


def _unrolled(
    layer: Any,
    graphdefs: Sequence[Sequence[Any]],
    train: bool,
    remat: str,
    rates: Sequence[tuple[float, ...]],
    states: Sequence[list[tuple[Any, Any]]],
    carry: Any,
    keys: jax.Array | None,
) -> tuple[Any, list[list[Any]]]:
    del rates  # a layer of a list knows its own
    heights = []
    for i in range(len(graphdefs[0])):
        one, state = [tower[i] for tower in graphdefs], [tower[i] for tower in states]
        apply = jax.checkpoint(functools.partial(_one_layer, layer, one, train, remat, None))
        carry, new = apply(state, carry, None if keys is None else keys[i])
        heights.append(new)
    return carry, [list(column) for column in zip(*heights, strict=True)]


def _in_a_loop(
    layer: Any,
    graphdefs: Sequence[Sequence[Any]],
    train: bool,
    remat: str,
    rates: Sequence[tuple[float, ...]],
    states: Sequence[list[tuple[Any, Any]]],
    carry: Any,
    keys: jax.Array | None,
) -> tuple[Any, list[list[Any]]]:
    one = [graphdef for (graphdef,) in graphdefs]

    def height(carry: Any, given: Any) -> tuple[Any, list[Any]]:
        states, key, rates = given
        return _one_layer(layer, one, train, remat, rates, states, carry, key)

    if remat in _OF_BLOCKS:
        # Within a loop nothing can be merged with what the forward pass has computed.
        height = jax.checkpoint(height, prevent_cse=False)
    # One row of rates for each tower; a layer that draws nothing needs none.
    rows = None if keys is None else list(jnp.asarray(rates).T)
    given = ([state for (state,) in states], keys, rows)
    carry, stats = jax.lax.scan(height, carry, given)
    return carry, [[new] for new in stats]


def _update(tower: Tower, start: int, stop: int, new: Sequence[Any]) -> None:
    if isinstance(tower, LayerStack):
        if (start, stop) == (0, len(tower)):
            nnx.update(tower.each, new[0])
        return
    for block, state in zip(list(tower)[start:stop], new, strict=True):
        nnx.update(block, state)
