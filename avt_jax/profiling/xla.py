"""What XLA says a function costs, from shapes alone.

Operations are counted on the lowered program, before XLA optimises it: that takes no compilation,
and is what the program asks for. The compiled program differs in both directions: equal products
are computed once, and element-wise work is computed again in every fusion that reads it (measured
on a CPU: 13 % more FLOPs for AVT-B's training step). XLA counts 2 for a multiply-add of a matrix
product and 1 per element for element-wise operations; exp, erf and the like are not among its
FLOPs. Dead code is gone in the lowered program.

The program is lowered for an accelerator whatever the machine, so the counts are the same
everywhere: what the models do otherwise on a CPU, for its caches' sake, is left out.

XLA counts the body of a loop once, however often it runs. JAX's own program still knows the
length of a `scan` (`fori_loop` with fixed bounds and `map` are scans too), so the missing rounds
are added here. A `while` whose length is not known before it runs stays counted once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from avt_jax.models.kernels import attention, depthwise_conv
from avt_jax.profiling import program

_REFERENCES = depthwise_conv.REFERENCES | attention.REFERENCES


def flops(function: Callable[..., Any], *args: Any) -> int:
    """FLOPs of a function, loops counted as often as they run.

    Args:
      function: a pure function of arrays.
      *args: its arguments, pytrees of arrays or `jax.ShapeDtypeStruct`; nothing is allocated.
    """
    return program_flops(program.live(function, *args))


def program_flops(jaxpr: core.Jaxpr) -> int:
    """FLOPs of a program without constants and dead equations, see `program.live`.

    Operations that have several forms count in their plainest, whatever form runs where: a
    convolution on the matrix unit is asked for products with zeros that nobody needs.
    """
    jaxpr = program.with_references(jaxpr, _REFERENCES)
    return _once(core.ClosedJaxpr(jaxpr, ())) + _missing(jaxpr)


def temporary_bytes(
    function: Callable[..., Any], *args: Any, donate: Sequence[int] = ()
) -> int | None:
    """Peak memory for what lives only during a call: activations and scratch space.

    Parameters, inputs and outputs are not in it. Compiles for the default backend, which takes
    from seconds to minutes; compilers differ, so the figure holds for that backend.

    Args:
      function: a pure function of arrays.
      *args: as those of `flops`.
      donate: numbers of the arguments whose memory may be reused for outputs.

    Returns:
      Bytes, or None where the backend does not say.
    """
    compiled = jax.jit(function, donate_argnums=tuple(donate)).lower(*args).compile()
    analysis = compiled.memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)


def _once(body: core.ClosedJaxpr) -> int:
    """FLOPs of the lowered program as XLA counts them, every loop once."""
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in body.in_avals]
    traced = jax.jit(core.jaxpr_as_fun(body)).trace(*shapes)
    lowered = traced.lower(lowering_platforms=(program.PLATFORM,))
    # A program without arithmetic has no entry "flops".
    found: float = (lowered.cost_analysis() or {}).get("flops", 0)
    return round(found)


def _missing(jaxpr: core.Jaxpr) -> int:
    """FLOPs of all rounds of a program's loops that XLA does not count."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            body, length = equation.params["jaxpr"], equation.params["length"]
            once = _once(body)
            seen = min(length, _rounds_seen(length, equation.params["unroll"]))
            total += length * (once + _missing(body.jaxpr)) - seen * once
        else:
            # Of several programs, such as the branches of a `cond`, XLA counts the dearest.
            total += max(map(_missing, program.inner_programs(equation)), default=0)
    return total


def _rounds_seen(length: int, unroll: int) -> int:
    """Rounds in the lowered program: an unrolled body, and the rest that does not fill one."""
    return unroll + length % unroll if length > unroll else length
