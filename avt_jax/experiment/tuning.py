"""Times the forms of the costly operations on the device at hand, for a model's own shapes."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.extend import core
from ml_collections import ConfigDict

from avt_jax.experiment.assemble import Experiment, Say, silent
from avt_jax.experiment.cost import Classes, read_classes, step_arguments
from avt_jax.models.kernels import (
    attention,
    choice,
    depthwise_conv,
    depthwise_forms,
    forms,
    kept,
)
from avt_jax.models.kernels.choice import Attend, Conv
from avt_jax.profiling import program

# A form replaces that of the rules where it is at least this much faster: less is noise.
_GAIN = 0.95
# A measurement takes at least so long, in up to so many calls: starting one call takes an
# accelerator's host longer than the call itself may take.
_LEAST_SEC, _MOST_CALLS = 5e-3, 50

_Found = tuple[tuple[str, ...], Conv | Attend, tuple[jax.ShapeDtypeStruct, ...]]


@dataclass(frozen=True)
class Timed:
    """A form in a case.

    Attributes:
      steps: the passes that it computes.
      case: the shapes, whatever the batch.
      form: its name.
      times_ms: of a call, in every measurement; none where it failed.
      chosen: whether it is the case's form from now on.
      failure: why it could not be run; "" where it could.
    """

    steps: tuple[str, ...]
    case: str
    form: str
    times_ms: tuple[float, ...]
    chosen: bool
    failure: str = ""


@dataclass(frozen=True)
class Tuned:
    """What was measured.

    Attributes:
      device_kind: on what.
      batch_size: clips.
      timed: every form of every case.
      path: where the choice is kept.
    """

    device_kind: str
    batch_size: int
    timed: tuple[Timed, ...]
    path: Path


def tune_config(
    config: ConfigDict | Mapping[str, Any],
    classes: Mapping[str, int] | None = None,
    *,
    batch_size: int | None = None,
    repeats: int = 5,
    say: Say = silent,
) -> Tuned:
    """Times every form for the shapes of a config's training step, and keeps the fastest.

    Args:
      config: as `load_config` gives it.
      classes: {label set: number of classes}; None takes them from the shards.
      batch_size: clips on one device; None = the config's batch over the devices at hand.
      repeats: measurements of each form; the median decides.
      say: is told what takes time.

    Raises:
      UserError: anything wrong in the config, or the file cannot be written.
    """
    if classes is None:
        classes = read_classes(None, Experiment(config).parts.data.path, say)
    counts = Classes.of(classes)
    experiment = Experiment(config, classes=counts, multi_label=counts.multi_label)
    if batch_size is None:
        batch_size = max(1, experiment.parts.train.batch_size // jax.device_count())
    say("tracing the training step")
    jaxpr = jax.make_jaxpr(experiment.step)(*step_arguments(experiment, batch_size)).jaxpr
    timed: list[Timed] = []
    for steps, case, shapes in dict.fromkeys(_cases(jaxpr)):
        say(f"{steps[0]}, {case}")
        timed += _time_case(steps, case, shapes, repeats)
    found: kept.Forms = {}
    for one in timed:
        for step in one.steps if one.chosen else ():
            found.setdefault(step, {})[one.case] = one.form
    path = kept.write(found)
    return Tuned(kept.device_kind(), batch_size, tuple(timed), path)


def _cases(jaxpr: core.Jaxpr) -> Iterator[_Found]:
    """The operations of a program, each with the shapes of its arguments."""
    for equation in jaxpr.eqns:
        name = equation.params.get("name") if equation.primitive.name == "jit" else None
        given = [
            jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype)  # type: ignore[attr-defined]
            for v in equation.invars
        ]
        made = [v.aval.shape for v in equation.outvars]  # type: ignore[attr-defined]
        if name == "depthwise_correlation":
            yield depthwise_conv.PASSES[:2], Conv.of(given[0], given[1].shape), (*given,)
        elif name == "depthwise_kernel_gradient":
            yield depthwise_conv.PASSES[2:], Conv.of(given[0], made[0]), (*given,)
        elif name == "attention_forward":
            yield (attention.STEP,), Attend.of(given[0], given[1]), (*given,)
        elif name != "attention_backward":
            for body in program.programs(equation.params.values()):
                yield from _cases(body)


def _call(steps: Sequence[str], case: Conv | Attend, name: str) -> Callable[..., Any]:
    """A form as a function of the case's arrays; attention with its gradients."""
    form = forms.REGISTRIES[steps[0]][name]
    if isinstance(case, Conv):
        if steps[0] == depthwise_conv.PASSES[2]:
            shape: depthwise_forms.KernelShape = (*case.kernel, case.size[3])
            return functools.partial(form, shape=shape)
        return form

    def both(*arrays: jax.Array) -> Any:
        out, statistics = form.forward(*arrays)
        return out, form.backward(*arrays, out, statistics, out)

    return both


def _time_case(
    steps: tuple[str, ...],
    case: Conv | Attend,
    shapes: Sequence[jax.ShapeDtypeStruct],
    repeats: int,
) -> list[Timed]:
    """Every form of a case, the forms taking turns; none where there is but one."""
    platform = choice.platform_of(jax.devices()[0])
    names = forms.candidates(steps[0], platform)
    if len(names) < 2:  # nothing to choose
        return []
    keys = jax.random.split(jax.random.key(0), len(shapes))
    arrays = [
        jax.random.normal(key, one.shape, one.dtype) for key, one in zip(keys, shapes, strict=True)
    ]
    ready: dict[str, Callable[..., Any]] = {}
    failures: dict[str, str] = {}
    for name in names:
        try:
            ready[name] = jax.jit(_call(steps, case, name)).lower(*arrays).compile()
            jax.block_until_ready(ready[name](*arrays))
        except (RuntimeError, NotImplementedError, ValueError) as error:
            ready.pop(name, None)
            failures[name] = str(error).partition("\n")[0]
    times_ms: dict[str, list[float]] = {name: [] for name in ready}
    calls = {name: _calls(run, arrays) for name, run in ready.items()}
    for _ in range(repeats):
        for name, run in ready.items():
            times_ms[name].append(_time_ms(run, arrays, calls[name]))
    best = _best(times_ms, choice.RULES[steps[0]][platform](case))
    return [
        Timed(
            steps,
            str(case),
            name,
            tuple(times_ms.get(name, ())),
            name == best,
            failures.get(name, ""),
        )
        for name in names
    ]


def _calls(run: Callable[..., Any], arrays: Sequence[jax.Array]) -> int:
    """How many calls make a measurement."""
    least_ms = max(_time_ms(run, arrays, 2), 1e-3)
    return max(1, min(_MOST_CALLS, int(1e3 * _LEAST_SEC / least_ms)))


def _time_ms(run: Callable[..., Any], arrays: Sequence[jax.Array], calls: int) -> float:
    """Of one call, when so many are queued."""
    start_sec = time.perf_counter()
    # The device works in order: when the last is done, all are.
    for _ in range(calls):
        made = run(*arrays)
    jax.block_until_ready(made)
    return (time.perf_counter() - start_sec) * 1e3 / calls


def _best(times_ms: Mapping[str, Sequence[float]], by_rule: str) -> str | None:
    """The fastest form by its median; that of the rules where none is clearly faster."""
    medians = {name: statistics.median(values) for name, values in times_ms.items()}
    if not medians:
        return None
    fastest = min(medians, key=lambda name: medians[name])
    if by_rule in medians and medians[fastest] > _GAIN * medians[by_rule]:
        return by_rule
    return fastest
