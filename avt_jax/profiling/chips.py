"""What is known of the TPU chips that a program can be compiled for, and of how they are wired.

Sources: peak, bandwidths and links from the vendor's system pages and from "How to Scale Your
Model" (jax-ml.github.io/scaling-book, chapter 2); usable memory from the compiler's own refusals
(libtpu 0.0.42.1), which is less than is printed on the chip.

The clock is not published for all of them. It is the peak over what the matrix units do in a cycle,
and it was checked with the compiler's estimates for an 8192^3 bfloat16 product and for reading and
writing 1 GiB each: these come out at 88 % of the peak and 81 % of the memory's bandwidth on a v5e,
70 and 81 on a v6e, 90 and 72 on a v5p, 93 and 77 on a v4.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Self

from avt_jax.errors import UserError, nearest

GIB = 2**30
# A signal from a chip to its neighbour and what starts it, "How to Scale Your Model", chapter 3.
HOP_SEC = 1e-6
EXAMPLES = "v5e:4x4, v5e:16x16, v6e:4x4, v5p:2x2x2 or v4:2x2x4"


@dataclass(frozen=True)
class Chip:
    """One kind of chip.

    Attributes:
      name: as in a topology's name.
      peak_flops: of bfloat16 products, a second.
      hbm_bytes: memory that the compiler may use.
      hbm_bandwidth: bytes a second, reading and writing together.
      clock_hz: cycles a second.
      link_bandwidth: bytes a second of one link to a neighbour, in one direction.
      axes: of the grid that the chips lie in.
      ring: length from which on an axis closes to a ring; it must be a multiple of it.
      variant: the compiler's name for the arrangement in which JAX shows the chip as one device;
        None for its only one.
    """

    name: str
    peak_flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    clock_hz: float
    link_bandwidth: float
    axes: int
    ring: int
    variant: str | None = None


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, int(30.75 * GIB), 1.23e12, 1.05e9, 45e9, 3, 4, "megacore"),
        Chip("v5e", 197e12, int(15.75 * GIB), 0.82e12, 1.5e9, 45e9, 2, 16),
        Chip("v5p", 459e12, int(95.74 * GIB), 2.76e12, 1.75e9, 90e9, 3, 4),
        Chip("v6e", 918e12, int(31.25 * GIB), 1.64e12, 1.75e9, 90e9, 2, 16),
    )
}


@dataclass(frozen=True)
class Topology:
    """Chips of one kind in a grid.

    Attributes:
      name: such as "v5e:4x4".
      chip: their kind.
      sizes: of the grid.
    """

    name: str
    chip: Chip
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, name: str) -> Self:
        """Reads a name such as "v5e:4x4" or "v5p:2x2x2".

        Raises:
          UserError: no such chip, or no such grid.
        """
        match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*)*)", name)
        if match is None:
            raise UserError(f"--topology {name!r} is no topology; give such as {EXAMPLES}.")
        chip = CHIPS.get(match[1])
        if chip is None:
            raise UserError(
                f"--topology {name!r}: chip {match[1]!r} is not known{nearest(match[1], CHIPS)}; "
                f"give such as {EXAMPLES}."
            )
        sizes = tuple(int(size) for size in match[2].split("x"))
        if len(sizes) != chip.axes:
            raise UserError(
                f"--topology {name!r}: a {chip.name} grid has {chip.axes} sizes, not {len(sizes)}; "
                f"give such as {EXAMPLES}."
            )
        return cls(name, chip, sizes)

    @property
    def num_chips(self) -> int:
        """In the whole grid."""
        return math.prod(self.sizes)

    def axis_bandwidth(self, size: int) -> float:
        """Bytes a second that reach a chip along an axis of this size; a ring has two sides."""
        if size == 1:
            return 0.0
        return self.chip.link_bandwidth * (2 if self._is_ring(size) else 1)

    def hops(self, size: int) -> int:
        """From a chip to the farthest along an axis of this size."""
        return size // 2 if self._is_ring(size) else size - 1

    def axes_of(self, group: int) -> tuple[int, ...]:
        """Sizes of the axes that a group of so many chips reaches over, the largest first.

        Which axes a smaller group lies along is not said by a program; the longest are assumed.
        """
        found: list[int] = []
        for size in sorted(self.sizes, reverse=True):
            if math.prod(found) < group and size > 1:
                found.append(min(size, math.ceil(group / math.prod(found))))
        return tuple(found)

    def _is_ring(self, size: int) -> bool:
        return size % self.chip.ring == 0
