"""Reads the text of a compiled program: what runs, how often, and what the compiler says of it.

XLA writes an optimised program as computations of instructions. What runs is the entry
computation; a `while` names the computation that it repeats, a `conditional` those of which it
takes one. Here they are put together to a list of instructions, each with how often it runs.

- A loop counts as often as it runs: the compiler's `known_trip_count`, or else what its condition
  compares its counter with. One whose length is not to be found counts once, and is listed.
- Of the branches of a conditional the dearest counts.
- A TPU's compiler writes `estimated_cycles` beside most fusions, convolutions and copies. The
  largest integer there means that it has no estimate.
- Collectives that the compiler has put into a fusion or an asynchronous call are found there.

The text has no promise of staying as it is: tests/profiling/test_hlo.py holds pieces of it, and
tests/profiling/test_ahead_of_time.py reads what the installed compiler writes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# What moves or computes nothing by itself, or what a part of another instruction stands for.
FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all partition-id replica-id "
    "opt-barrier while conditional call".split()
)
# "No estimate" in the compiler's fields.
_NO_ESTIMATE = 2**63 - 1

_BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"\b(pred|bf16|c64|c128|[suf]\d+(?:e\d+m\d+\w*)?)\[([\d,]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_LINE = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_END = re.compile(r"\}(, execution_thread=.*)?$")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"\b(?:calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_TABLE_ROW = re.compile(r"(\d+) (.*)$")


@dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: unique in its computation.
      opcode: such as "fusion".
      type: shapes and layouts of the result, as written.
      operands: names.
      literal: what stands between the parentheses of a constant or parameter.
      attributes: what follows, as written.
      is_root: its result is the computation's.
    """

    name: str
    opcode: str
    type: str
    operands: tuple[str, ...]
    literal: str
    attributes: str
    is_root: bool

    @property
    def op_name(self) -> str:
        """JAX's name stack; "" where the compiler kept none."""
        return self._attribute(r'op_name="((?:[^"\\]|\\.)*)"') or ""

    @property
    def cycles(self) -> int | None:
        """The compiler's estimate for one run; None where it has none."""
        found = self._attribute(r'"estimated_cycles":"(\d+)"')
        return None if found is None or int(found) >= _NO_ESTIMATE else int(found)

    @property
    def frame(self) -> int | None:
        """The line of Python that it comes from, as a number in `Program.frames`."""
        found = self._attribute(r"stack_frame_id=(\d+)")
        return None if found is None else int(found)

    @property
    def target(self) -> str:
        """The function that a custom call calls; "" for other instructions."""
        return self._attribute(r'custom_call_target="([^"]*)"') or ""

    @property
    def called(self) -> list[str]:
        """Names of the computations that it names."""
        found = _CALLED.findall(self.attributes)
        branches = _BRANCHES.search(self.attributes)
        if branches:
            found += [name.strip().lstrip("%") for name in branches[1].split(",")]
        return found

    @property
    def collective(self) -> str | None:
        """The kind, one of `COLLECTIVES`; None for other instructions and for the end of one."""
        kind = self.opcode.removesuffix("-start")
        return kind if kind in COLLECTIVES else None

    def attribute(self, name: str) -> str | None:
        """The computation named by `name=%computation`."""
        return self._attribute(rf"\b{name}=%?([\w.\-]+)")

    def _attribute(self, pattern: str) -> str | None:
        found = re.search(pattern, self.attributes)
        return found[1] if found else None


@dataclass(frozen=True)
class Executed:
    """An instruction and how often a call of the program runs it."""

    instruction: Instruction
    computation: str
    times: int


@dataclass
class Program:
    """A compiled program.

    Attributes:
      computations: {name: {name of an instruction: instruction}}.
      entry: the computation that runs.
      num_partitions: devices that it is divided over.
      frames: {number: (file, function, number of the caller's frame)}.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str
    num_partitions: int
    frames: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    unknown_loops: list[str] = field(default_factory=list)

    @cached_property
    def executed(self) -> list[Executed]:
        """What runs, in the order of the text; see the module's docstring."""
        return list(self._run(self.entry, 1))

    def stack(self, instruction: Instruction) -> Iterator[tuple[str, str]]:
        """(file, function) of the Python lines that an instruction comes from, the inner first."""
        number = instruction.frame
        while number in self.frames:
            file, function, number = self.frames[number]
            yield file, function

    def body(self, instruction: Instruction) -> Mapping[str, Instruction]:
        """The computation of a fusion; empty for other instructions."""
        called = instruction.attribute("calls")
        return self.computations.get(called or "", {})

    def _run(self, name: str, times: int) -> Iterator[Executed]:
        channels: set[str] = set()
        for instruction in self.computations[name].values():
            if instruction.opcode == "while":
                rounds = self.rounds(instruction, name)
                if rounds is None:
                    self.unknown_loops.append(instruction.op_name or instruction.name)
                yield from self._run(instruction.attribute("body") or "", times * (rounds or 1))
            elif instruction.opcode == "conditional":
                branches = [list(self._run(branch, times)) for branch in instruction.called]
                yield from max(branches, key=_total_cycles, default=[])
            elif instruction.opcode == "call":
                yield from self._run(instruction.called[0], times)
            else:
                yield Executed(instruction, name, times)
                if instruction.opcode in ("fusion", "async-start"):
                    yield from self._collectives(instruction, times, channels)

    def _collectives(
        self, instruction: Instruction, times: int, channels: set[str]
    ) -> Iterator[Executed]:
        """Those within a fusion.

        One that runs beside the computation stands in several: where it starts, where it ends, and
        in each fusion that keeps it going in between. All name the same channel.
        """
        called = instruction.attribute("calls") or ""
        for inner in self.body(instruction).values():
            if inner.collective:
                channel = re.search(r"\bchannel_id=(\d+)", inner.attributes)
                if channel is None or channel[1] not in channels:
                    yield Executed(inner, called, times)
                if channel:
                    channels.add(channel[1])
            elif inner.opcode == "fusion":
                yield from self._collectives(inner, times, channels)

    def rounds(self, loop: Instruction, computation: str) -> int | None:
        """How often a `while` runs its body; None where that is not to be found."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        condition = self.computations[loop.attribute("condition") or ""]
        compare = next((i for i in condition.values() if i.is_root), None)
        if (
            compare is None
            or compare.opcode != "compare"
            or "direction=LT" not in compare.attributes
        ):
            return self._largest_constant(loop.attribute("condition") or "")
        counter, limit = (condition[operand] for operand in compare.operands)
        start, end = (self._before_loop(i, loop, computation) for i in (counter, limit))
        if end is None:
            return None
        return max(0, math.ceil((end - (start or 0)) / self._stride(counter, loop)))

    def _before_loop(self, value: Instruction, loop: Instruction, computation: str) -> int | None:
        """A value in a loop's condition, as a number, when the loop begins."""
        if value.opcode == "constant":
            return _integer(value.literal)
        index = re.search(r"\bindex=(\d+)", value.attributes)
        outside = self.computations[computation]
        given = outside.get(loop.operands[0])
        if value.opcode != "get-tuple-element" or index is None or given is None:
            return None
        if given.opcode != "tuple":
            return None
        source = outside.get(given.operands[int(index[1])])
        while source is not None and source.opcode in ("copy", "bitcast"):
            source = outside.get(source.operands[0])
        return _integer(source.literal) if source and source.opcode == "constant" else None

    def _stride(self, counter: Instruction, loop: Instruction) -> int:
        """What the body of a loop adds to its counter; 1 where that is not to be found."""
        body = self.computations[loop.attribute("body") or ""]
        root = next((i for i in body.values() if i.is_root and i.opcode == "tuple"), None)
        index = re.search(r"\bindex=(\d+)", counter.attributes)
        if root is None or index is None:
            return 1
        added = body.get(root.operands[int(index[1])])
        constants = [
            _integer(body[operand].literal)
            for operand in (added.operands if added and added.opcode == "add" else ())
            if operand in body and body[operand].opcode == "constant"
        ]
        return (constants[0] if constants else 1) or 1

    def _largest_constant(self, condition: str) -> int | None:
        """Of a condition that the compiler has rewritten: the largest number in it."""
        names = [condition]
        for instruction in self.computations[condition].values():
            names += instruction.called
        found = [
            _integer(i.literal)
            for name in names
            for i in self.computations[name].values()
            if i.opcode == "constant" and i.type.startswith("s32[]")
        ]
        return max((number for number in found if number is not None), default=None)


def parse(text: str) -> Program:
    """Reads the text of a compiled program (`Compiled.as_text()`).

    Raises:
      ValueError: there is no entry computation in it.
    """
    partitions = re.search(r"\bnum_partitions=(\d+)", text[:100_000])
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = None, None
    for line in _whole_lines(text):
        if current is None:
            head = _HEAD.match(line) if line.endswith("{") else None
            if head:
                current = computations.setdefault(head[2], {})
                entry = head[2] if head[1] else entry
        elif _END.match(line):
            current = None
        else:
            instruction = _instruction(line)
            if instruction:
                current[instruction.name] = instruction
    if entry is None:
        raise ValueError("the text has no ENTRY computation")
    return Program(computations, entry, int(partitions[1]) if partitions else 1, _frames(text))


def _whole_lines(text: str) -> Iterator[str]:
    """Lines, those of an instruction together: what a Pallas call says of itself breaks lines."""
    whole = ""
    for line in text.splitlines():
        if whole.startswith(" ") and line and line[0] != " " and not _END.match(line):
            whole += line
        else:
            yield whole
            whole = line
    yield whole


def array_bytes(type: str, *, hbm_only: bool = False) -> int:
    """Bytes of the arrays in a type, such as "(f32[2,3]{1,0}, bf16[4])", without padding.

    Args:
      type: as written.
      hbm_only: leave out what lies elsewhere, in the chip's own vector memory for example: layouts
        name another memory than the first as S(number).
    """
    total = 0
    for kind, sizes, layout in _ARRAY.findall(type):
        if not (hbm_only and re.search(r"S\([1-9]\d*\)", layout)):
            bits = _BITS.get(kind) or int(re.findall(r"\d+", kind)[0])
            total += math.prod(int(size) for size in sizes.split(",") if size) * bits
    return math.ceil(total / 8)


def _instruction(line: str) -> Instruction | None:
    match = _LINE.match(line)
    if match is None:
        return None
    rest = re.sub(r"/\*.*?\*/", "", match[3])
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    type, rest = rest[:end], rest[end:].lstrip()
    opcode, parenthesis, rest = rest.partition("(")
    if not parenthesis:
        return None
    end = _closing(rest, 1)
    inside, attributes = rest[:end], rest[end + 1 :]
    operands = tuple(_NAME.findall(inside)) if opcode not in ("constant", "parameter") else ()
    literal = "" if operands else inside
    return Instruction(match[2], opcode, type, operands, literal, attributes, bool(match[1]))


def _closing(text: str, depth: int) -> int:
    """Where the parenthesis ends that is open at the start (`depth` 1), or the first one (0)."""
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    return len(text)


def _integer(literal: str) -> int | None:
    return int(literal) if re.fullmatch(r"-?\d+", literal) else None


def _total_cycles(branch: list[Executed]) -> int:
    return sum((one.instruction.cycles or 0) * one.times for one in branch)


def _frames(text: str) -> dict[int, tuple[str, str, int]]:
    """The tables in front of the computations, as `Program.frames`."""
    tables: dict[str, dict[int, str]] = {}
    rows: dict[int, str] = {}
    for line in text.splitlines():
        row = _TABLE_ROW.match(line)
        if row:
            rows[int(row[1])] = row[2]
        elif line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            rows = tables[line] = {}
        elif line.endswith("{"):
            break
    places = {}
    for number, row_text in tables.get("FileLocations", {}).items():
        file = tables["FileNames"].get(_field(row_text, "file_name_id"), "")
        function = tables["FunctionNames"].get(_field(row_text, "function_name_id"), "")
        places[number] = (file.strip('"'), function.strip('"'))
    frames = tables.get("StackFrames", {})
    # Callers come first. The compiler of libtpu 0.0.42 writes their numbers one too high.
    excess = _field(frames.get(1, ""), "parent_frame_id")
    return {
        number: (
            *places.get(_field(frame, "file_location_id"), ("", "")),
            _field(frame, "parent_frame_id") - excess,
        )
        for number, frame in frames.items()
    }


def _field(text: str, name: str) -> int:
    found = re.search(rf"\b{name}=(\d+)", text)
    return int(found[1]) if found else 0
