"""Walking a traced program: its live equations, the programs within, and its named parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


def is_call(equation: core.JaxprEqn, names: Iterable[str]) -> bool:
    """Whether an equation calls a function under `jax.jit` of one of these names.

    Without arguments it is no such call: JAX takes constants out of loops in one of the same name.
    """
    is_named = equation.primitive.name == "jit" and equation.params["name"] in names
    return is_named and bool(equation.invars)


def inner_programs(equation: core.JaxprEqn) -> list[core.Jaxpr]:
    """The programs within an equation, without the branches that are for other platforms."""
    platforms = equation.params.get("branches_platforms")
    if not platforms:
        return list(programs(equation.params.values()))
    ours = next(i for i, names in enumerate(platforms) if names is None or PLATFORM in names)
    return list(programs([equation.params["branches"][ours]]))


def _array(variable: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)


def _only(body: core.ClosedJaxpr, wanted: Sequence[Any]) -> core.ClosedJaxpr:
    """A program with those of its results, in order, that have the wanted shapes: none is dead."""
    made = iter(body.jaxpr.outvars)
    kept = [next(one for one in made if _array(one) == _array(want)) for want in wanted]
    names = body.jaxpr.debug_info.with_unknown_names()
    return core.ClosedJaxpr(body.jaxpr.replace(outvars=kept, debug_info=names), body.consts)


def with_references(jaxpr: core.Jaxpr, references: Mapping[str, Callable[..., Any]]) -> core.Jaxpr:
    """The program with calls of named functions replaced, also in loops and recomputed blocks.

    It takes effect when the program is traced again.

    Args:
      jaxpr: the program.
      references: {name of a function under `jax.jit`: what stands for it, from the shape of its
        first result and its arguments}.
    """

    def replaced(value: Any) -> Any:
        if isinstance(value, core.ClosedJaxpr):
            return core.ClosedJaxpr(with_references(value.jaxpr, references), value.consts)
        if isinstance(value, core.Jaxpr):
            return with_references(value, references)
        if type(value) is tuple:  # not one with names, such as the dimensions of a convolution
            return tuple(map(replaced, value))
        return value

    equations = []
    for equation in jaxpr.eqns:
        if is_call(equation, references):
            made, *_ = map(_array, equation.outvars)
            reference = functools.partial(references[equation.params["name"]], made.shape)
            body = _only(jax.make_jaxpr(reference)(*map(_array, equation.invars)), equation.outvars)
            # Under another name: it is no longer the form that was chosen.
            params = {**equation.params, "jaxpr": body, "name": "reference"}
        else:
            params = {key: replaced(value) for key, value in equation.params.items()}
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
