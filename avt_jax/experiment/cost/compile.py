"""The training step of a config, compiled for TPUs that are not here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import jax
from ml_collections import ConfigDict

from avt_jax.experiment.assemble import Experiment, Say, silent
from avt_jax.experiment.cost.profile import Classes, read_classes, step_arguments
from avt_jax.profiling import ahead_of_time, flops, hlo
from avt_jax.profiling.ahead_of_time import Compilation, DoesNotFit, Memory
from avt_jax.profiling.chips import GIB, Topology
from avt_jax.profiling.step_cost import StepCost, assumptions, estimate
from avt_jax.training import mesh as meshes

# Beyond this a batch is no longer the question.
_MOST_PER_CHIP = 4096


@dataclass(frozen=True)
class Try:
    """Whether one batch fits.

    Attributes:
      per_chip: clips.
      fits: the compiler found room.
      needed_bytes: of a chip's memory; None where the compiler does not say.
    """

    per_chip: int
    fits: bool
    needed_bytes: int | None


@dataclass(frozen=True)
class CompileReport:
    """What the compiler says of a config's training step.

    Attributes:
      topology: the chips.
      batch_per_chip: clips.
      classes: {label set: number of classes}.
      precision: computation type.
      effort: asked of the compiler; None = as for users.
      tries: what was compiled, in this order; the first is the batch asked for.
      largest_batch: most clips per chip that fit, 0 where not even one does; None if not searched.
      memory: of a chip; None where the step does not fit. So are the following.
      seconds: {"trace", "lower", "compile"}: what each took here.
      flops: of a step on all chips, products and convolutions.
      repeated_flops: of these, what the backward pass computes a second time.
      cost: estimated cycles, bytes and collectives of a chip.
    """

    topology: Topology
    batch_per_chip: int
    classes: dict[str, int]
    precision: str
    effort: float | None
    tries: tuple[Try, ...]
    largest_batch: int | None
    memory: Memory | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    flops: int = 0
    repeated_flops: int = 0
    cost: StepCost | None = None

    @property
    def fits(self) -> bool:
        """The batch asked for fits."""
        return self.memory is not None

    def step_sec(self, *, overlap: bool) -> float:
        """Estimated time of a step.

        Args:
          overlap: collectives run beside the computation, as far as both last.
        """
        compute, talk = self._sec()
        return max(compute, talk) if overlap else compute + talk

    def efficiency(self, *, overlap: bool) -> float:
        """Clips a second a chip, over what it would be if the chips had nothing to tell."""
        return self._sec()[0] / self.step_sec(overlap=overlap)

    def mfu(self, *, overlap: bool) -> float:
        """The products that the model asks for, over what the chips could do in a step."""
        able = self.step_sec(overlap=overlap) * self.topology.chip.peak_flops
        return (self.flops - self.repeated_flops) / (able * self.topology.num_chips)

    @property
    def assumptions(self) -> list[str]:
        """What the estimates rest on, in sentences."""
        found = assumptions(self.topology.chip)
        if self.effort is not None and self.effort < 0:
            # Measured on a v5e: a layer's products 9 to 13 times, its norm 1.2 to 2 times.
            found.insert(
                0,
                f"effort {self.effort:g}: the code is several times slower than usual, "
                "so the times are too long; memory and collectives hold",
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """The figures, as JSON takes them."""
        found: dict[str, Any] = {
            "topology": self.topology.name,
            "chips": self.topology.num_chips,
            "batch_per_chip": self.batch_per_chip,
            "classes": self.classes,
            "precision": self.precision,
            "effort": self.effort,
            "fits": self.fits,
            "hbm_bytes": self.topology.chip.hbm_bytes,
            "tries": [asdict(one) for one in self.tries],
            "largest_batch": self.largest_batch,
        }
        if self.memory is None or self.cost is None:
            return found
        compute, talk = self._sec()
        modes = {"without_overlap": False, "with_overlap": True}
        return found | {
            "memory": asdict(self.memory),
            "seconds": self.seconds,
            "flops": self.flops,
            "repeated_flops": self.repeated_flops,
            "compute_sec": compute,
            "collective_sec": talk,
            "step_sec": {name: self.step_sec(overlap=how) for name, how in modes.items()},
            "mfu": {name: self.mfu(overlap=how) for name, how in modes.items()},
            "efficiency": {name: self.efficiency(overlap=how) for name, how in modes.items()},
            "collectives": {
                kind: asdict(total) for kind, total in self.cost.collective_totals.items()
            },
            "amounts": [
                asdict(origin) | asdict(amount) for origin, amount in self.cost.amounts.items()
            ],
            "pallas": asdict(self.cost.pallas),
            "without_cycles": dict(self.cost.without_cycles),
            "unknown_loops": self.cost.unknown_loops,
            "assumptions": self.assumptions,
        }

    def _sec(self) -> tuple[float, float]:
        if self.cost is None:
            raise ValueError("the step does not fit, so there is no time of it")
        return self.cost.compute_sec, self.cost.collective_sec(self.topology)


def compile_step(
    config: ConfigDict | Mapping[str, Any],
    topology: str,
    *,
    batch_per_chip: int | None = None,
    classes: Mapping[str, int] | None = None,
    largest_batch: bool = False,
    effort: float | None = None,
    say: Say = silent,
) -> CompileReport:
    """Compiles the training step of a config for a topology, and reads what the compiler says.

    Args:
      config: as `load_config` gives it.
      topology: such as "v5e:4x4".
      batch_per_chip: clips; None = `config.train.batch_size` over the chips.
      classes: {label set: number of classes}; None takes them from the shards.
      largest_batch: find the largest batch that fits, by more compilations.
      effort: asked of the compiler, -1 (quick, poorer code) to 1; None = as for users.
      say: is told what takes time.

    Raises:
      UserError: anything wrong in the config, no such topology, or no libtpu.
    """
    steps = StepCompiler(config, topology, classes=classes, effort=effort, say=say)
    if batch_per_chip is None:
        batch = steps.experiment.parts.train.batch_size
        meshes.check_batch_size(batch, steps.experiment.mesh)
        batch_per_chip = batch // steps.topology.num_chips
    made, first = steps.attempt(batch_per_chip)
    tries, largest = [first], None
    if largest_batch:
        largest = search(steps.attempt, tries, say)
    report = partial(
        CompileReport,
        topology=steps.topology,
        batch_per_chip=batch_per_chip,
        classes=dict(steps.experiment.classes),
        precision=steps.experiment.parts.model["precision"],
        effort=effort,
        tries=tuple(tries),
        largest_batch=largest,
    )
    if made is None:
        return report()
    say("reading the compiled program")
    total, repeated = flops.of_step(made.jaxpr.jaxpr)
    return report(
        memory=made.memory,
        seconds=made.seconds,
        flops=total,
        repeated_flops=repeated,
        cost=estimate(
            hlo.parse(made.text),
            steps.topology.chip,
            flops.in_pallas(made.jaxpr.jaxpr) / steps.topology.num_chips,
        ),
    )


class StepCompiler:
    """Compiles the training step of one config for one topology, for any batch.

    Args:
      config: as `load_config` gives it.
      topology: such as "v5e:4x4".
      classes: as those of `compile_step`.
      effort: the same.
      say: the same.

    Attributes:
      experiment: what is trained.
      topology: the chips.
    """

    def __init__(
        self,
        config: ConfigDict | Mapping[str, Any],
        topology: str,
        *,
        classes: Mapping[str, int] | None = None,
        effort: float | None = None,
        say: Say = silent,
    ):
        self.topology, self._effort, self._say = Topology.of(topology), effort, say
        devices = ahead_of_time.devices(self.topology)
        if classes is None:
            classes = read_classes(None, Experiment(config).parts.data.path, say)
        classes = Classes.of(classes)
        several = classes.multi_label
        self.experiment = Experiment(config, classes=classes, multi_label=several, devices=devices)
        mesh, config = self.experiment.mesh, self.experiment.parts.mesh
        with ahead_of_time.ticking(say, "building the model's structure"):
            state, *_ = step_arguments(self.experiment, mesh.size)
        places = meshes.variable_shardings(mesh, state, config)
        self._step = self.experiment.packed_step(places, state)

    def arguments(self, per_chip: int) -> tuple[Any, ...]:
        """Shapes and places of the step's arguments for so many clips a chip."""
        mesh = self.experiment.mesh
        state, batch, key = step_arguments(self.experiment, per_chip * mesh.size)
        state = jax.eval_shape(self._step.pack, state)
        places = (
            self._step.shardings,
            jax.tree.map(lambda _: meshes.batch_sharding(mesh), batch),
            meshes.replicated(mesh),
        )
        return tuple(
            jax.tree.map(
                lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), *pair
            )
            for pair in zip((state, batch, key), places, strict=True)
        )

    def compile(self, per_chip: int) -> Compilation:
        """Compiles the step for so many clips a chip.

        Raises:
          DoesNotFit: a chip's memory does not suffice.
        """
        return ahead_of_time.compile_for_tpu(
            self._step.jitted,
            self.arguments(per_chip),
            name=self.topology.name,
            say=self._say,
            effort=self._effort,
        )

    def attempt(self, per_chip: int) -> tuple[Compilation | None, Try]:
        """Compiles, and says whether it fits."""
        try:
            made = self.compile(per_chip)
        except DoesNotFit as error:
            figures = (error.needed_bytes, error.available_bytes)
            shown = [f"{size / GIB:.2f} GiB" if size else "an unknown amount" for size in figures]
            self._say(f"{per_chip} clips a chip do not fit: {shown[0]} of {shown[1]}")
            return None, Try(per_chip, False, error.needed_bytes)
        peak = made.memory.peak
        self._say(f"{per_chip} clips a chip fit: {peak / GIB:.2f} GiB")
        return made, Try(per_chip, True, peak)


def search(attempt: Callable[[int], tuple[Any, Try]], tries: list[Try], say: Say = silent) -> int:
    """The largest batch per chip that fits, by doubling and then by halving the interval.

    Args:
      attempt: compiles for so many clips a chip.
      tries: those made already, at least one; further ones are added.
      say: is told what is tried.
    """
    while True:
        fitting = max((one.per_chip for one in tries if one.fits), default=0)
        failing = min((one.per_chip for one in tries if not one.fits), default=None)
        if failing is not None and failing - fitting <= 1:
            return fitting
        if failing is None and fitting >= _MOST_PER_CHIP:
            return fitting
        guess = 2 * fitting if failing is None else (fitting + failing) // 2
        known = f"{fitting} fit" + ("" if failing is None else f", {failing} do not")
        say(f"largest batch: {known}; trying {guess} clips a chip")
        tries.append(attempt(guess)[1])
