"""The named parts of a model, for whoever counts what each of them costs.

A model opens `part(...)` around its work; every operation traced within carries the name, through
gradients, recomputation and loops, into the program and into a profiler's trace. Whoever counts
needs no list of models: a model that names no parts is counted whole. Of nested parts the outermost
counts.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import jax

# An encoder reaches to the first layer in which the modalities meet, with the projection to the
# fusion's width; the heads classify, and hold what only a training loss needs.
VIDEO = "video encoder"
AUDIO = "audio encoder"
FUSION = "fusion"
HEADS = "heads"
PARTS = (VIDEO, AUDIO, FUSION, HEADS)

# JAX writes a scope within a gradient as transpose(jvp(NAME)), and libraries open scopes too.
_PART = re.compile(r"\[([^\[\]]+)\]")


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """What is traced within belongs to the part `name`, one of `PARTS` or another without brackets.

    Also a decorator of functions.
    """
    with jax.named_scope(f"[{name}]"):
        yield


def part_of(name_stack: str) -> str | None:
    """The part that an operation with this name stack belongs to; None without one."""
    found = _PART.search(name_stack)
    return found[1] if found else None
