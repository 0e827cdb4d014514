"""Programs taken apart and put together again say the same."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from avt_jax.models import scopes
from avt_jax.profiling import program

SQUARE = jax.ShapeDtypeStruct((4, 4), jnp.float32)


@jax.jit
def marked(x):
    return jnp.tan(x) @ x


def run(jaxpr, *values):
    return jax.jit(core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, ())))(*values)


def calls(jaxpr):
    """Names of the functions under `jax.jit` in a program, nested ones too."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "jit":
            found.append(equation.params["name"])
        for body in program.inner_programs(equation):
            found += calls(body)
    return found


@jax.custom_vjp
def with_gradient(x):
    return marked(x)


with_gradient.defvjp(lambda x: (marked(x), x), lambda x, grad: (marked(grad) + x,))


def test_named_functions_are_replaced_wherever_they_are_called():
    def function(x):
        x = jax.vjp(lambda x: jax.remat(with_gradient)(jax.jit(jnp.cos)(x)), x)[1](x)[0]
        return jax.lax.fori_loop(0, 3, lambda i, x: marked(x), x)

    def reference(made, x):
        assert made == x.shape
        return jnp.cos(x) @ x + 1

    for call in (function, with_gradient):
        before = program.live(call, SQUARE)
        after = program.with_references(before, {"marked": reference})
        assert "marked" in calls(before) and " tan " in str(before) and " tan " not in str(after)
        values = (np.float32(0.5) * np.eye(4, dtype=np.float32),)
        assert not np.allclose(run(before, *values)[0], run(after, *values)[0])
    x = np.linspace(0.1, 1, 16, dtype=np.float32).reshape(4, 4)
    np.testing.assert_allclose(run(after, x)[0], reference(x.shape, x), rtol=1e-6)


def test_parts_of_a_program_are_programs_that_fit_together():
    constant = jnp.arange(16.0).reshape(4, 4)

    def function(x):
        with scopes.part("first"):
            y, unused = x @ constant, jnp.cos(x)
        z = jnp.sin(y)
        with scopes.part("second"):
            return y @ z, unused.shape[0] * z

    whole = program.live(function, SQUARE)
    parts = program.split(whole)
    assert set(parts) == {"first", None, "second"}
    values = {
        variable: value
        for variable, value in zip(whole.invars, (constant, constant + 1), strict=True)
    }
    for name in ("first", None, "second"):
        part = parts[name]
        given = [values[variable] for variable in part.invars]
        values |= dict(zip(part.outvars, run(part, *given), strict=True))
    for variable, expected in zip(whole.outvars, function(constant + 1), strict=True):
        np.testing.assert_allclose(values[variable], expected, rtol=1e-6)


def test_amounts_in_order():
    assert program.named({None: 2, "b": 1, "fusion": 3, "heads": 0}) == {
        "fusion": 3,
        "b": 1,
        "other": 2,
    }
    assert list(program.named({"b": 1, "fusion": 3})) == ["fusion", "b"]
    assert program.named({None: 2, "heads": 0}) == {"model": 2}
