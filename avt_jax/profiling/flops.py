"""Floating-point operations of matrix products and convolutions, read from a traced program.

Counted are the multiply-adds of matrix products, attention's among them, and of convolutions,
two FLOPs each. Not counted is what is done once per element: biases, norms, GELU, softmax, residual
sums, positions, pooling. The program is JAX's own, before it is lowered, so any function can be
counted, its gradient too, and nothing is compiled.

- Only what a result needs counts.
- A `scan` (`fori_loop` with fixed bounds and `map` are scans too) counts as often as it runs. A
  `while` whose length is not known before it runs counts once.
- Of the branches of a `cond` the dearest counts; of those chosen by platform, an accelerator's.
- An operation that is a convolution in meaning and another thing in form, such as shifted
  multiply-adds, says beside its code what it stands for (`depthwise_conv.MULTIPLY_ADDS`), whatever
  its form.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from jax.extend import core

from avt_jax.models.kernels import attention, depthwise_conv
from avt_jax.profiling import program

Parts = Counter[str | None]

# {name of a function under `jax.jit`: its multiply-adds from (shapes in, shapes out)}.
_STATED = depthwise_conv.MULTIPLY_ADDS | attention.MULTIPLY_ADDS


def total(function: Callable[..., Any], *args: Any) -> int:
    """FLOPs of a function.

    Args:
      function: a pure function of arrays.
      *args: its arguments, pytrees of arrays or `jax.ShapeDtypeStruct`; nothing is allocated.
    """
    return sum(by_part(function, *args).values())


def by_part(function: Callable[..., Any], *args: Any) -> dict[str, int]:
    """FLOPs of a function by the parts that its model names, see `models.scopes`.

    Args:
      function: a pure function of arrays.
      *args: as those of `total`.

    Returns:
      {part: FLOPs}; "other" is what belongs to no part. A program without parts is one, "model".
    """
    macs = _count(program.live(function, *args), None, program.part_of)
    return program.named({part: 2 * number for part, number in macs.items()})


def of_step(jaxpr: core.Jaxpr) -> tuple[int, int]:
    """FLOPs of a traced program: (all, those that a backward pass computes a second time)."""

    def repeated(equation: core.JaxprEqn) -> str | None:
        stack = str(equation.source_info.name_stack)
        return "again" if "rematted_computation" in stack else None

    macs = _count(program.needed(jaxpr), None, repeated)
    return 2 * macs.total(), 2 * macs["again"]


def in_pallas(jaxpr: core.Jaxpr) -> int:
    """FLOPs of a traced program in kernels written in Pallas, whatever they stand for."""
    total = 0
    for equation in jaxpr.eqns:
        bodies = program.inner_programs(equation)
        if equation.primitive.name == "pallas_call":
            inner = [2 * _count(body, None, program.part_of).total() for body in bodies]
        else:
            inner = [in_pallas(body) for body in bodies]
        dearest = equation.primitive.name == "cond"
        total += _times(equation) * (max(inner, default=0) if dearest else sum(inner))
    return total


def _count(
    jaxpr: core.Jaxpr, part: str | None, part_of: Callable[[core.JaxprEqn], str | None]
) -> Parts:
    """Multiply-adds by part; `part` is that of the equation around the program."""
    found: Parts = Counter()
    for equation in jaxpr.eqns:
        here = part or part_of(equation)
        product = _product(equation)
        if product is not None:
            found[here] += product
            continue
        inner = [_count(body, here, part_of) for body in program.inner_programs(equation)]
        if equation.primitive.name == "cond":
            inner = [max(inner, key=Counter.total)]
        times = _times(equation)
        for counts in inner:
            for name, number in counts.items():
                found[name] += times * number
    return found


def _times(equation: core.JaxprEqn) -> int:
    """How often an equation runs the program within it, over all devices."""
    if equation.primitive.name == "scan":
        length: int = equation.params["length"]
        return length
    if equation.primitive.name == "shard_map":  # its program is one device's
        params = equation.params
        axes = params.get("newly_manual_axes") or params.get("manual_axes", ())
        return math.prod(params["mesh"].shape[axis] for axis in axes)
    if equation.primitive.name == "pallas_call":  # its program is one block's
        return math.prod(n for n in equation.params["grid_mapping"].grid if isinstance(n, int))
    return 1


def _product(equation: core.JaxprEqn) -> int | None:
    """Multiply-adds of an equation that is a product by itself; None for any other."""
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left, (out,) = _shapes(equation.invars)[0], _shapes(equation.outvars)
        return math.prod(out) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        (_, kernel), (out,) = _shapes(equation.invars), _shapes(equation.outvars)
        taps = math.prod(kernel) // kernel[params["dimension_numbers"].rhs_spec[0]]
        # The zeros that a dilated input has between its values are multiplied with nothing.
        return math.prod(out) * taps // math.prod(params["lhs_dilation"])
    if program.is_call(equation, _STATED):
        return _STATED[params["name"]](_shapes(equation.invars), _shapes(equation.outvars))
    return None


def _shapes(variables: Sequence[Any]) -> list[tuple[int, ...]]:
    return [variable.aval.shape for variable in variables]
