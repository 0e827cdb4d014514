"""What the chips of a compiled program tell each other: how often, how much, how long it takes.

Times are the textbook's ("How to Scale Your Model", chapter 3) for a torus: with W the bytes a
second that a chip receives over the axes that take part, n the chips and V the bytes of the array,

    all-gather, reduce-scatter   V (n - 1) / n / W
    all-reduce                   twice that
    all-to-all                   V l / (4 w): half of all data crosses the middle of the longest
                                 axis, of l chips and w bytes a second
    collective-permute           V over one link, to a neighbour

and never less than a signal takes to the farthest chip (an all-reduce: there and back), which is
what the many small ones cost.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from avt_jax.profiling.chips import HOP_SEC, Topology
from avt_jax.profiling.hlo import Executed, Program, array_bytes


@dataclass(frozen=True)
class Collective:
    """One instruction that makes chips talk.

    Attributes:
      kind: one of `hlo.COLLECTIVES`.
      bytes: of the array on one chip, the larger of what goes in and what comes out.
      group: chips that talk with each other.
      times: how often a call of the program runs it.
      op_name: JAX's name stack.
    """

    kind: str
    bytes: int
    group: int
    times: int
    op_name: str

    def seconds(self, topology: Topology) -> float:
        """Of all its runs together, from the formulas above."""
        if self.group < 2:
            return 0.0
        axes = topology.axes_of(self.group)
        if self.kind == "collective-permute":
            return self.times * max(self.bytes / topology.chip.link_bandwidth, HOP_SEC)
        bandwidth = sum(topology.axis_bandwidth(size) for size in axes)
        farthest = sum(topology.hops(size) for size in axes) * HOP_SEC
        if self.kind == "all-to-all":
            moving = self.bytes * axes[0] / (4 * topology.axis_bandwidth(axes[0]))
        else:
            moving = self.bytes * (self.group - 1) / self.group / bandwidth
        ways = 2 if self.kind == "all-reduce" else 1
        return self.times * ways * max(moving, farthest)


@dataclass(frozen=True)
class Total:
    """All collectives of one kind in a call of a program.

    Attributes:
      count: runs, in loops as often as they run.
      bytes: of the arrays on one chip, added up.
    """

    count: int
    bytes: int


def find(program: Program) -> list[Collective]:
    """Every collective that a program runs."""
    found = []
    for one in program.executed:
        kind = one.instruction.collective
        if kind:
            if one.computation.startswith("all-reduce-scatter"):  # the TPU's way to write it
                kind = "reduce-scatter"
            group = _group(one.instruction.attributes, program.num_partitions)
            size = _payload(program, one)
            found.append(Collective(kind, size, group, one.times, one.instruction.op_name))
    return found


def totals(collectives: Iterable[Collective]) -> dict[str, Total]:
    """{kind: how many and how much}, in the order in which they first come."""
    found: dict[str, Total] = {}
    for one in collectives:
        old = found.get(one.kind, Total(0, 0))
        found[one.kind] = Total(old.count + one.times, old.bytes + one.times * one.bytes)
    return found


def _payload(program: Program, one: Executed) -> int:
    computation, instruction = program.computations[one.computation], one.instruction
    given = sum(
        array_bytes(computation[name].type) for name in instruction.operands if name in computation
    )
    # The start of an asynchronous one gives back what it was given, too, and scalars of its own.
    type = re.sub(r"\b[us]32\[\]", "", instruction.type)
    made = array_bytes(type)
    if instruction.opcode.endswith("-start") and type.startswith("(") and made > given:
        made -= given
    return max(given, made)


def _group(attributes: str, num_partitions: int) -> int:
    """Chips in a group, from any of the ways in which the compiler writes groups."""
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", attributes)
    if mesh:
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes.get(name, 1)) for name in re.findall(r"'([^']+)'", mesh[2]))
    counted = re.search(r"replica_groups=\[\d+,(\d+)\]", attributes)
    if counted:
        return int(counted[1])
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    if listed:
        return listed[1].count(",") + 1
    return num_partitions
