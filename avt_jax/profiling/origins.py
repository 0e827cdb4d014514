"""Where an instruction of a compiled program comes from: part, pass, and kind of operation.

Read from the name stack and the lines of Python that the compiler keeps beside an instruction.
A fusion is what its product is, and else what its last operation is. What the compiler has added
itself, copies most of all, goes with what reads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from avt_jax.models import scopes
from avt_jax.profiling.hlo import Executed, Instruction, Program
from avt_jax.profiling.program import MODEL, OTHER

FORWARD, AGAIN, BACKWARD, UPDATE = "forward", "recomputed", "backward", "update"

DEPTHWISE, ATTENTION, NORM, DENSE = "depthwise convolution", "attention", "norm", "dense product"
CONVOLUTION, LOSS, OPTIMISER, REST = "other convolution", "loss", "optimiser", "element by element"
COPY = "copy, reshape"
# (what a file's path holds, in which function, kind), for the innermost line of ours or of theirs.
_PLACES = (
    (re.compile(r"models/kernels/depthwise"), re.compile(""), DEPTHWISE),
    (re.compile(r"models/kernels/attention"), re.compile(""), ATTENTION),
    (re.compile(r"avt_jax/losses/"), re.compile(""), LOSS),
    (re.compile(r"optax/|training/optimizer"), re.compile(""), OPTIMISER),
    (re.compile(r"nn/normalization\.py|models/"), re.compile("(?i)norm"), NORM),
)
_OURS = re.compile("avt_jax/")
# What of a name stack tells the same where lines are missing.
_NAMES = (
    (re.compile(r"depthwise"), DEPTHWISE),
    (re.compile(r"(?i)(dot_product|splash|flash|self|multihead)_?attention|gnd,gmd"), ATTENTION),
)
_PRODUCTS = ("convolution", "dot")
_LAST_NAMES = {
    "dot_general": DENSE,
    "conv_general_dilated": CONVOLUTION,
    **dict.fromkeys(("copy", "transpose", "reshape", "concatenate", "pad", "squeeze"), COPY),
}


@dataclass(frozen=True, order=True)
class Origin:
    """What an instruction is counted under.

    Attributes:
      part: of the model, see `models.scopes`; "other" outside of all.
      stage: FORWARD, AGAIN (recomputed for the backward pass), BACKWARD or UPDATE (neither: the
        optimiser, and the preparation of the batch).
      kind: of operation.
    """

    part: str
    stage: str
    kind: str


class Origins:
    """Finds the origin of a program's instructions.

    Args:
      program: from `hlo.parse`.
    """

    def __init__(self, program: Program):
        self._program = program
        self._readers: dict[str, dict[str, list[Instruction]]] = {}
        names = [one.instruction.op_name for one in program.executed]
        self._rest = OTHER if any(map(_part, names)) else MODEL

    def of(self, one: Executed) -> Origin:
        """The origin of an instruction that runs."""
        told = self._teller(one)
        name = told.op_name
        return Origin(_part(name) or self._rest, stage(name), self._kind(one, told))

    def _teller(self, one: Executed) -> Instruction:
        """The instruction whose name and lines stand for another's."""
        body = list(self._program.body(one.instruction).values())
        products = [i for i in body if i.opcode in _PRODUCTS and i.op_name]
        if products:
            return products[-1]
        if one.instruction.op_name:
            return one.instruction
        named = [i for i in body if i.op_name]
        if named:
            return named[-1]
        return self._neighbour(one) or one.instruction

    def _neighbour(self, one: Executed) -> Instruction | None:
        """What reads an instruction's result, or else what made what it reads."""
        computation = self._program.computations[one.computation]
        readers = self._readers_in(one.computation, computation)
        waiting, seen = [one.instruction], {one.instruction.name}
        for forward in (True, False):
            while waiting:
                current = waiting.pop(0)
                if current.op_name:
                    return current
                near = (
                    readers.get(current.name, [])
                    if forward
                    else [computation[name] for name in current.operands if name in computation]
                )
                waiting += [i for i in near if i.name not in seen and i.opcode != "while"]
                seen |= {i.name for i in near}
            waiting, seen = [one.instruction], {one.instruction.name}
        return None

    def _readers_in(
        self, name: str, computation: Mapping[str, Instruction]
    ) -> dict[str, list[Instruction]]:
        if name not in self._readers:
            found: dict[str, list[Instruction]] = {}
            for instruction in computation.values():
                for operand in instruction.operands:
                    found.setdefault(operand, []).append(instruction)
            self._readers[name] = found
        return self._readers[name]

    def _kind(self, one: Executed, told: Instruction) -> str:
        for path, inside in self._program.stack(told):
            for file, function, kind in _PLACES:
                if file.search(path) and function.search(inside):
                    return kind
            if _OURS.search(path):  # who calls it says nothing: a loss calls the whole model
                break
        for name, kind in _NAMES:
            if name.search(told.op_name):
                return kind
        if one.instruction.opcode.startswith("copy") or not one.instruction.op_name:
            return COPY
        last = told.op_name.rpartition("/")[2]
        if last in _LAST_NAMES:
            return _LAST_NAMES[last]
        return OPTIMISER if stage(told.op_name) == UPDATE else REST


def _part(op_name: str) -> str | None:
    # An argument's name is no name stack: `state.params['...']`.
    return scopes.part_of(op_name) if op_name.startswith("jit(") else None


def stage(op_name: str) -> str:
    """In which pass an operation with this name stack runs."""
    if "rematted_computation" in op_name:
        return AGAIN
    if "transpose(" in op_name:
        return BACKWARD
    return FORWARD if "jvp(" in op_name else UPDATE
