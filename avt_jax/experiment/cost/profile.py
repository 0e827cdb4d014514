"""What the model of a config costs, from shapes alone: nothing is allocated or run."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avt_jax import axes, tree
from avt_jax.data.records.description import read_description
from avt_jax.data.records.generated import is_generated
from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment, Say, silent
from avt_jax.experiment.splits import read_info
from avt_jax.profiling import xla
from avt_jax.profiling.forward_pass import ForwardPass
from avt_jax.training.state import TrainState

_CLASSES = re.compile(r"\w+=[1-9]\d*\+?(,\w+=[1-9]\d*\+?)*")
_DEFAULT_CLASSES = {"label": 400}


class Classes(dict[str, int]):
    """{label set: number of classes}, and which sets are multi-label.

    Args:
      counts: {label set: number of classes}.
      multi_label: the sets of which a clip may have any number of classes.
    """

    def __init__(self, counts: Mapping[str, int], multi_label: Collection[str] = ()):
        super().__init__(counts)
        self.multi_label = tuple(multi_label)

    @staticmethod
    def of(counts: Mapping[str, int]) -> Classes:
        """The same; of an ordinary mapping no set is multi-label."""
        return counts if isinstance(counts, Classes) else Classes(counts)


@dataclass(frozen=True)
class Profile:
    """What a model costs. FLOPs and bytes are of a batch, forward in evaluation.

    Attributes:
      batch_size: clips.
      classes: {label set: number of classes}.
      precision: computation type.
      parameters: {part: number of scalars}.
      trained_parameters: of all parts, those that the config does not freeze.
      analytic_flops: {part: FLOPs} of matrix products and convolutions.
      xla_flops: {part: FLOPs}, as XLA counts them.
      step_flops: of a training step, gradient and optimiser, as XLA counts them.
      forward_bytes: peak memory of activations; None where not asked for.
      step_bytes: the same in a training step.
      backend: where that memory would be.
    """

    batch_size: int
    classes: dict[str, int]
    precision: str
    parameters: dict[str, int]
    trained_parameters: int
    analytic_flops: dict[str, int]
    xla_flops: dict[str, int]
    step_flops: int | None
    forward_bytes: int | None
    step_bytes: int | None
    backend: str


def read_classes(text: str | None, path: str, say: Say = silent) -> Classes:
    """The number of classes of each label set.

    Args:
      text: such as "label=309" or "verb=97,noun=300", "label=527+" of a multi-label set; None
        takes them from the shards.
      path: config.data.path.
      say: is told when a default is taken.

    Raises:
      UserError: `text` does not read, or what is at `path` are no shards.
    """
    if text is not None:
        if not _CLASSES.fullmatch(text):
            raise UserError(
                f"--classes {text!r}: give such as label=309 or verb=97,noun=300, and label=527+ "
                "for a multi-label set."
            )
        found: dict[str, int] = {}
        several = []
        for name, number in (pair.split("=") for pair in text.split(",")):
            if name in found:
                raise UserError(f"--classes {text!r} gives {name} twice; give each set once.")
            found[name] = int(number.rstrip("+"))
            several += [name] * number.endswith("+")
        return Classes(found, several)
    if is_generated(path) or os.path.exists(path):
        # Of clips or of cached tokens.
        info = read_info(path) if is_generated(path) else read_description(path)
        return Classes({n: len(names) for n, names in info.label_sets.items()}, info.multi_label)
    (default,) = (f"{name}={number}" for name, number in _DEFAULT_CLASSES.items())
    say(f"no shards at config.data.path = {path!r}: counting {default}; --classes changes it")
    return Classes(_DEFAULT_CLASSES)


def step_arguments(experiment: Experiment, batch_size: int) -> tuple[Any, ...]:
    """Shapes of the arguments of `experiment.step`: (state, batch, key).

    Args:
      experiment: what is trained.
      batch_size: clips.
    """
    skeleton, optimizer = experiment.skeleton, experiment.optimizer
    state = TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32),
        params=skeleton.params,
        stats=skeleton.stats,
        ema=dict(skeleton.params) if experiment.parts.optimizer.ema_decay else {},
        opt_state=jax.eval_shape(optimizer.init, skeleton.params),
    )

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch_size, *shape), dtype)

    spec, shapes = experiment.spec, experiment.spec.shapes()
    batch = {
        axes.VIDEO: array(jnp.float32 if spec.is_tokens else jnp.uint8, *shapes[axes.VIDEO]),
        axes.AUDIO: array(jnp.float32, *shapes[axes.AUDIO]),
        axes.HAS_AUDIO: array(jnp.bool_),
        axes.HAS_VIDEO: array(jnp.bool_),
        axes.LABELS: {
            name: array(jnp.int32, *([number] if name in experiment.multi_label else []))
            for name, number in experiment.classes.items()
        },
        axes.GROUP: array(jnp.int32),
        axes.VALID: array(jnp.bool_),
    }
    return state, batch, jax.eval_shape(lambda: jax.random.key(0))


def profile_config(
    config: ConfigDict | Mapping[str, Any],
    classes: Mapping[str, int] | None = None,
    *,
    batch_size: int = 1,
    training: bool = True,
    forward_memory: bool = True,
    training_memory: bool = True,
    say: Say = silent,
) -> Profile:
    """Measures what a config's model costs, from shapes alone.

    Args:
      config: as `load_config` gives it.
      classes: {label set: number of classes}, `Classes` where sets are multi-label; None takes
        them from the shards.
      batch_size: clips.
      training: count the training step's operations too.
      forward_memory: find the peak memory of the forward pass; compiles it.
      training_memory: find the peak memory of the training step; compiles it, which may take
        minutes.
      say: is told what takes time.

    Raises:
      UserError: anything wrong in the config.
    """
    if classes is None:
        classes = read_classes(None, Experiment(config).parts.data.path, say)
    classes = Classes.of(classes)
    experiment = Experiment(config, classes=classes, multi_label=classes.multi_label)
    model, spec = experiment.parts.model, experiment.spec
    say("building the model's structure")
    skeleton = experiment.skeleton
    step, step_args = experiment.step, step_arguments(experiment, batch_size)
    say("counting the forward pass")
    forward = ForwardPass(skeleton, model["modalities"], spec, batch_size)
    xla_flops = forward.xla_flops()
    step_flops = forward_bytes = step_bytes = None
    if training:
        say("counting the training step")
        step_flops = xla.flops(step, *step_args)
    if forward_memory:
        say("compiling the forward pass")
        forward_bytes = forward.temporary_bytes()
    if training_memory:
        say("compiling the training step (minutes for a large model)")
        step_bytes = xla.temporary_bytes(step, *step_args, donate=(0,))
    return Profile(
        batch_size=batch_size,
        classes=dict(classes),
        precision=model["precision"],
        parameters=forward.parameters(),
        trained_parameters=_trained_parameters(experiment),
        analytic_flops=forward.flops(),
        xla_flops=xla_flops,
        step_flops=step_flops,
        forward_bytes=forward_bytes,
        step_bytes=step_bytes,
        backend=jax.default_backend(),
    )


def _trained_parameters(experiment: Experiment) -> int:
    params = experiment.skeleton.params
    frozen = experiment.parts.optimizer.frozen_paths(params)
    return tree.parameter_count({path: one for path, one in params.items() if path not in frozen})
