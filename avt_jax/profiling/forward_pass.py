"""What a model's forward pass costs, part by part: parameters, operations, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from avt_jax import tree
from avt_jax.models import scopes
from avt_jax.models.inputs import InputSpec
from avt_jax.profiling import flops, program, xla
from avt_jax.tree.rngs import CountedRngs


def inputs(input: InputSpec, batch_size: int = 1) -> tuple[Any, Any]:
    """Shapes of what the model reads: (video, audio), float32, the batch first."""
    shapes = input.shapes()
    video, audio = ((batch_size, *shapes[name]) for name in ("video", "audio"))
    return jax.ShapeDtypeStruct(video, jnp.float32), jax.ShapeDtypeStruct(audio, jnp.float32)


class ForwardPass:
    """A model's forward pass and its parts, from shapes alone, for any model.

    The parts are those that the model names (`models.scopes`): of AVT and MBT the two encoders, the
    fusion and the heads. A model that names none is one part, "model".

    Args:
      skeleton: the model's structure.
      modalities: "av", "audio" or "video".
      input: the shape of what it reads.
      batch_size: clips.
    """

    def __init__(
        self, skeleton: tree.Skeleton[Any], modalities: str, input: InputSpec, batch_size: int = 1
    ):
        self._skeleton = skeleton
        video, audio = inputs(input, batch_size)
        self._args = (
            skeleton.params,
            skeleton.stats,
            video if modalities != "audio" else None,
            audio if modalities != "video" else None,
        )

    def _logits(
        self, params: tree.Flat, stats: tree.Flat, video: Any, audio: Any, **options: Any
    ) -> Any:
        model: Any = self._skeleton.merge(params, stats)
        return model.fuse(*model.encode(video, audio, **options), **options)["logits"]

    def flops(self) -> dict[str, int]:
        """{part: FLOPs of products and convolutions} of a batch in evaluation, see `flops`."""
        return flops.by_part(self._logits, *self._args)

    def xla_flops(self) -> dict[str, int]:
        """{part: FLOPs as XLA counts them} of a batch in evaluation, see `xla`."""
        parts = program.split(program.live(self._logits, *self._args))
        return program.named({part: xla.program_flops(body) for part, body in parts.items()})

    def parameters(self) -> dict[str, int]:
        """{part: number of scalars} of the parameters.

        A parameter belongs to the part that reads it in training, to the first in the order of
        `scopes.PARTS` where several do. Those that the forward pass does not read serve a loss
        only, such as the contrastive projections; they belong to the heads.
        """

        def train(params: tree.Flat, stats: tree.Flat, video: Any, audio: Any, key: Any) -> Any:
            rngs = CountedRngs(key)
            return self._logits(params, stats, video, audio, train=True, rngs=rngs)

        key = jax.eval_shape(jax.random.key, 0)
        jaxpr = jax.make_jaxpr(train)(*self._args, key).jaxpr
        leaves = jax.tree.leaves(self._skeleton.params)
        numbers = dict(zip(jaxpr.invars, range(len(leaves)), strict=False))
        readers: dict[int, list[str | None]] = {}
        _note_readers(jaxpr, numbers, readers)
        named = any(part for parts in readers.values() for part in parts)
        found: Counter[str | None] = Counter()
        for number, leaf in enumerate(leaves):
            parts = readers.get(number, [scopes.HEADS if named else None])
            order = [*scopes.PARTS, *(part for part in parts if part is not None), None]
            found[next(part for part in order if part in parts)] += int(leaf.size)
        return program.named(found)

    def temporary_bytes(self) -> int | None:
        """Peak memory of activations in evaluation, see `xla.temporary_bytes`; compiles."""
        return xla.temporary_bytes(self._logits, *self._args)


def _note_readers(
    jaxpr: core.Jaxpr, numbers: Mapping[Any, int], readers: dict[int, list[str | None]]
) -> None:
    """Adds to `readers` the parts in which each of a program's numbered variables is read."""
    for equation in jaxpr.eqns:
        part = program.part_of(equation)
        read = [
            numbers.get(variable) if isinstance(variable, core.Var) else None
            for variable in equation.invars
        ]
        bodies = program.inner_programs(equation) if part is None else []
        for body in bodies:
            # The inputs of a program within are the last of the equation's: a `cond` has its index
            # in front.
            given = zip(reversed(body.invars), reversed(read), strict=False)
            within = {variable: number for variable, number in given if number is not None}
            _note_readers(body, within, readers)
        if not bodies:
            for number in read:
                if number is not None:
                    readers.setdefault(number, []).append(part)
