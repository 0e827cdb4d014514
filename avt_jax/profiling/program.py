"""Walking a traced program: its live equations, the programs within, and its named parts."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval

from avt_jax.models import scopes

# Programs are read as an accelerator would run them: what the models do otherwise on a CPU, for
# its caches' sake, is left out. Lowering for a TPU needs none, and has no opaque calls into
# libraries, whose cost XLA cannot see.
PLATFORM = "tpu"

# Where a model names no part, and what lies outside of all where it does.
MODEL = "model"
OTHER = "other"


def live(function: Callable[..., Any], *args: Any) -> core.Jaxpr:
    """The program of a function without the equations that no result needs.

    Constants that it holds become inputs in front of its own.

    Args:
      function: a pure function of arrays.
      *args: its arguments, pytrees of arrays or `jax.ShapeDtypeStruct`; nothing is allocated.
    """
    return needed(jax.jit(function).trace(*args).jaxpr.jaxpr)


def needed(jaxpr: core.Jaxpr) -> core.Jaxpr:
    """A traced program without the equations that no result needs; see `live`."""
    used, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)
    found: core.Jaxpr = used.replace(
        constvars=[],
        invars=[*used.constvars, *used.invars],
        debug_info=used.debug_info.with_unknown_names(),
    )
    return found


def programs(values: Iterable[Any]) -> Iterator[core.Jaxpr]:
    """The programs among the parameters of an equation."""
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from programs(value)


def inner_programs(equation: core.JaxprEqn) -> list[core.Jaxpr]:
    """The programs within an equation, without the branches that are for other platforms."""
    platforms = equation.params.get("branches_platforms")
    if not platforms:
        return list(programs(equation.params.values()))
    ours = next(i for i, names in enumerate(platforms) if names is None or PLATFORM in names)
    return list(programs([equation.params["branches"][ours]]))


def inlined(jaxpr: core.Jaxpr, names: Container[str]) -> core.Jaxpr:
    """The program without the calls of functions of these names under `jax.jit`: their bodies.

    It takes effect when the program is traced again; calls in loops and recomputed blocks stay.
    """

    equations = []
    for equation in jaxpr.eqns:
        params = dict(equation.params)
        if equation.primitive.name == "jit" and params["name"] in names:
            params["inline"] = True
        if "call_jaxpr" in params:  # a function with a gradient of its own
            body = params["call_jaxpr"]
            params["call_jaxpr"] = core.ClosedJaxpr(inlined(body.jaxpr, names), body.consts)
        equations.append(equation.replace(params=params))
    found: core.Jaxpr = jaxpr.replace(eqns=equations)
    return found


def part_of(equation: core.JaxprEqn) -> str | None:
    """The part of the model that an equation belongs to, see `models.scopes`; None without one."""
    return scopes.part_of(str(equation.source_info.name_stack))


def named(amounts: Mapping[str | None, int]) -> dict[str, int]:
    """{part: amount} of what is more than 0, in the order of `scopes.PARTS`, other parts after it.

    Args:
      amounts: by part; None is what belongs to no part.
    """
    rest = [part for part in amounts if part is not None and part not in scopes.PARTS]
    found = {part: amounts[part] for part in (*scopes.PARTS, *rest) if amounts.get(part)}
    if amounts.get(None):
        found[OTHER if found else MODEL] = amounts[None]
    return found


def split(jaxpr: core.Jaxpr) -> dict[str | None, core.Jaxpr]:
    """Takes a program apart into one for each part, by the scopes of its own equations.

    Each has as inputs what its equations read from elsewhere, and as outputs what is read
    elsewhere.
    """
    equations: dict[str | None, list[core.JaxprEqn]] = {}
    for equation in jaxpr.eqns:
        equations.setdefault(part_of(equation), []).append(equation)
    reads = {part: _variables(e.invars for e in own) for part, own in equations.items()}
    found = {}
    for part, own in equations.items():
        made = _variables(e.outvars for e in own)
        wanted = _variables([jaxpr.outvars, *(read for p, read in reads.items() if p != part)])
        found[part] = jaxpr.replace(
            constvars=[],
            invars=[variable for variable in reads[part] if variable not in made],
            outvars=[variable for variable in made if variable in wanted],
            eqns=own,
            debug_info=jaxpr.debug_info.with_unknown_names(),
        )
    return found


def _variables(groups: Iterable[Iterable[Any]]) -> dict[core.Var, None]:
    """Variables in order, each once."""
    return {v: None for group in groups for v in group if isinstance(v, core.Var)}
