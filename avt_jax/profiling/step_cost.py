"""What a compiled program is estimated to take on chips that are not here.

The compiler's own cycles, added up over what runs, and the collectives by formula. What carries no
cycles (Pallas calls, sorting, random bits) takes the longer of its operations at the chip's peak
and its bytes at the memory's bandwidth. All this is for comparing forms of a program with each
other, and no measured time; `assumptions` says what it leaves out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from avt_jax.profiling.chips import Chip, Topology
from avt_jax.profiling.collectives import Collective, Total, find, totals
from avt_jax.profiling.hlo import COLLECTIVES, FREE, Executed, Instruction, Program, array_bytes
from avt_jax.profiling.origins import Origin, Origins

_ASSUMPTIONS = (
    "cycles are the compiler's estimates at a clock of {clock:.2f} GHz, loops as often as they run",
    "peak {peak:.0f} TFLOP/s in bfloat16, {bandwidth:.2f} TB/s of HBM, {link:.0f} GB/s a link and "
    "direction, 1 us a hop",
    "operations bound by memory come out 1.7 to 4 times too slow in these cycles (streaming alone "
    "1.2 to 1.4); 'by bytes' is what their traffic takes at the memory's full bandwidth",
    "Pallas calls carry no cycles: the longer of operations at the peak and bytes at the "
    "bandwidth; their operations are counted in JAX's program where a kernel states none",
    "collectives are not in the compiler's cycles: the textbook's formulas, alone on the links",
    "'without overlap' adds computation and collectives, 'with overlap' takes the longer of both",
    "the host, the input pipeline and the launch of the step cost nothing",
)
# Less than this is a loop's counting and the like: too many to be listed, and nothing to move.
_SMALL_BYTES = 4096
# Copies between memories that run beside the computation.
_BESIDE = ("copy-start", "copy-done", "async-start", "async-update", "async-done")


@dataclass
class Amount:
    """What instructions of one origin take in a call of a program, on one chip.

    Attributes:
      count: instructions run.
      cycles: as the compiler estimates them.
      seconds: these at the chip's clock, and the estimate of what carries none.
      bytes: read from and written to HBM.
    """

    count: int = 0
    cycles: int = 0
    seconds: float = 0.0
    bytes: int = 0

    def add(self, other: Amount) -> None:
        """Adds another amount to this one."""
        self.count += other.count
        self.cycles += other.cycles
        self.seconds += other.seconds
        self.bytes += other.bytes


@dataclass
class StepCost:
    """What a call of a program is estimated to take.

    Attributes:
      amounts: {origin: amount}, without collectives.
      pallas: of these, Pallas calls.
      without_cycles: {opcode: how often} of other instructions without an estimate.
      collectives: every one.
      unknown_loops: names of loops whose length was not found; they count once.
    """

    amounts: dict[Origin, Amount] = field(default_factory=dict)
    pallas: Amount = field(default_factory=Amount)
    without_cycles: Counter[str] = field(default_factory=Counter)
    collectives: list[Collective] = field(default_factory=list)
    unknown_loops: list[str] = field(default_factory=list)

    @property
    def compute_sec(self) -> float:
        """Of everything but collectives."""
        return sum(amount.seconds for amount in self.amounts.values())

    def collective_sec(self, topology: Topology) -> float:
        """Of the collectives, one after another."""
        return sum(one.seconds(topology) for one in self.collectives)

    @property
    def collective_totals(self) -> dict[str, Total]:
        """{kind: how many and how much}."""
        return totals(self.collectives)

    def by(self, key: Callable[[Origin], str]) -> dict[str, Amount]:
        """Amounts added up by what `key` says of their origin, the dearest first."""
        found: dict[str, Amount] = {}
        for origin, amount in self.amounts.items():
            found.setdefault(key(origin), Amount()).add(amount)
        return dict(sorted(found.items(), key=lambda pair: -pair[1].seconds))


def estimate(program: Program, chip: Chip, pallas_flops: float = 0) -> StepCost:
    """Estimates what a compiled program takes on one chip.

    Args:
      program: from `hlo.parse`, compiled for that kind of chip.
      chip: the kind.
      pallas_flops: of all Pallas calls on the chip, for those that do not state their own.
    """
    origins, cost = Origins(program), StepCost()
    unstated: list[tuple[Amount, Amount]] = []
    for one in program.executed:
        instruction = one.instruction
        if instruction.opcode in FREE or instruction.opcode in _BESIDE or _is_collective(one):
            continue
        cycles = instruction.cycles
        if cycles is None and any(i.collective for i in program.body(instruction).values()):
            continue  # the start or the end of one that runs beside the computation
        size = moved_bytes(program, one)
        seconds = cycles / chip.clock_hz if cycles is not None else size / chip.hbm_bandwidth
        stated = _stated(instruction) if cycles is None else None
        if stated is not None:
            size = stated["bytes_accessed"] or size
            seconds = max(stated["flops"] / chip.peak_flops, size / chip.hbm_bandwidth)
        amount = Amount(one.times, (cycles or 0) * one.times, seconds * one.times, size * one.times)
        whole = cost.amounts.setdefault(origins.of(one), Amount())
        whole.add(amount)
        if is_pallas(instruction):
            cost.pallas.add(amount)
            if stated is None:
                unstated.append((whole, amount))
            else:
                pallas_flops -= stated["flops"] * one.times
        elif cycles is None and size >= _SMALL_BYTES:
            cost.without_cycles[instruction.target or instruction.opcode] += one.times
    _add_flops(cost, unstated, pallas_flops / chip.peak_flops)
    cost.collectives = find(program)
    cost.unknown_loops = list(program.unknown_loops)
    return cost


def _add_flops(cost: StepCost, calls: list[tuple[Amount, Amount]], seconds: float) -> None:
    """Lets Pallas calls together take no less than their operations at the chip's peak.

    Which call does how many of them is not in the compiled program: each is lengthened alike.

    Args:
      cost: what is changed.
      calls: (what a call was added to, what was added).
      seconds: that all their operations take.
    """
    before = sum(amount.seconds for _, amount in calls)
    if seconds > before > 0:
        for whole, amount in calls:
            whole.seconds += amount.seconds * (seconds / before - 1)
        cost.pallas.seconds += seconds - before


def assumptions(chip: Chip) -> list[str]:
    """What the estimates for a chip rest on and leave out, in sentences."""
    return [
        line.format(
            clock=chip.clock_hz / 1e9,
            peak=chip.peak_flops / 1e12,
            bandwidth=chip.hbm_bandwidth / 1e12,
            link=chip.link_bandwidth / 1e9,
        )
        for line in _ASSUMPTIONS
    ]


def is_pallas(instruction: Instruction) -> bool:
    """True for a call of a kernel written in Pallas."""
    return instruction.target == "tpu_custom_call"


def moved_bytes(program: Program, one: Executed) -> int:
    """What an instruction reads from and writes to HBM, without padding.

    Of an array of which only a slice is read, or into which one is written, the slice counts.
    """
    computation, body = program.computations[one.computation], program.body(one.instruction)
    parameters = {
        int(i.literal): i for i in body.values() if i.opcode == "parameter" and i.literal.isdigit()
    }
    root = next((i for i in body.values() if i.is_root), one.instruction)
    while root.opcode == "bitcast" and root.operands and root.operands[0] in body:
        root = body[root.operands[0]]
    total = array_bytes(one.instruction.type, hbm_only=True)
    updated = None
    if root.opcode == "dynamic-update-slice" and total:
        holder = body or computation
        updated, update = root.operands[0], holder.get(root.operands[1])
        total = array_bytes(update.type) if update else total
    for number, name in enumerate(one.instruction.operands):
        given = computation.get(name)
        if given is None or not array_bytes(given.type, hbm_only=True):
            continue
        inner = parameters.get(number)
        if updated and updated == (inner.name if inner else name):
            continue
        total += _read(given, inner, body)
    return total


def _read(given: Instruction, inner: Instruction | None, body: Mapping[str, Instruction]) -> int:
    """Bytes that a fusion reads of what it is given."""
    whole, slices = array_bytes(given.type, hbm_only=True), ("dynamic-slice", "slice")
    if inner is None:
        return whole
    readers = [i for i in body.values() if inner.name in i.operands]
    if readers and all(i.opcode in slices and i.operands[0] == inner.name for i in readers):
        return sum(array_bytes(i.type) for i in readers)
    return whole


def _is_collective(one: Executed) -> bool:
    """True for a collective and for the end of an asynchronous one."""
    return re.sub(r"-(start|done)$", "", one.instruction.opcode) in COLLECTIVES


def _stated(instruction: Instruction) -> dict[str, int] | None:
    """What a Pallas kernel says of itself (`pl.CostEstimate`)."""
    found = re.search(r'"cost_estimate":\s*\{([^}]*)\}', instruction.attributes)
    if found is None:
        return None
    numbers = dict(re.findall(r'"(\w+)":\s*"?(\d+)', found[1]))
    return {name: int(numbers.get(name, 0)) for name in ("flops", "bytes_accessed")}
