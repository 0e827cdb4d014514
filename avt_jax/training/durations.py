"""Lengths and intervals of a training, given in optimiser steps, examples or epochs.

A duration is three fields of a config block: `warmup_steps`, `warmup_examples`, `warmup_epochs`. 0
means not given. The unit in which a block has its default counts only if no other is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avt_jax.errors import UserError
from avt_jax.settings import Block, fields_of, setting

UNITS = ("steps", "examples", "epochs")
_MAX = {"steps": 10**12, "examples": 10**15, "epochs": 1e9}


@dataclass(frozen=True)
class Pace:
    """How fast a training goes through its data.

    Attributes:
      batch_size: clips a step, over all devices.
      steps_per_epoch: steps in one pass over the training split.
    """

    batch_size: int
    steps_per_epoch: int


def field_name(prefix: str, unit: str) -> str:
    """The field of a duration: ("warmup", "steps") is warmup_steps, ("", "steps") is steps."""
    return f"{prefix}_{unit}" if prefix else unit


def in_steps_setting(default: int, doc: str) -> Any:
    """The field of a duration in steps; `doc` says what lasts so long."""
    return setting(default, f"{doc}, in steps; 0 = not given", at_least=0, at_most=_MAX["steps"])


def in_examples_setting(default: int, doc: str) -> Any:
    """The field of a duration in examples, that is clips seen."""
    return setting(
        default, f"{doc}, in clips seen; 0 = not given", at_least=0, at_most=_MAX["examples"]
    )


def in_epochs_setting(default: float, doc: str) -> Any:
    """The field of a duration in passes over the training split."""
    return setting(
        default,
        f"{doc}, in passes over the training split; 0 = not given",
        at_least=0,
        at_most=_MAX["epochs"],
    )


def chosen_unit(block: Block, prefix: str) -> str | None:
    """The unit in which a duration is given; None where it is not.

    Raises:
      UserError: it is given in two units.
    """
    defaults = {field.name: field.default for field in fields_of(type(block))}
    given = [unit for unit in UNITS if getattr(block, field_name(prefix, unit))]
    meant = [unit for unit in given if not defaults[field_name(prefix, unit)]]
    if len(meant) > 1:
        first, second = (field_name(prefix, unit) for unit in meant[:2])
        raise UserError(
            f"{block.where}.{first} is {getattr(block, first)} and {second} "
            f"{getattr(block, second)}; give one of them, and 0 for the other."
        )
    return next(iter(meant or given), None)


def in_steps(block: Block, prefix: str, pace: Pace) -> float | None:
    """A duration in optimiser steps, not rounded; None where it is not given.

    Args:
      block: has the three fields.
      prefix: what comes before their unit, such as "warmup"; "" for the length of a training.
      pace: clips a step, and steps an epoch.
    """
    unit = chosen_unit(block, prefix)
    if unit is None:
        return None
    value = float(getattr(block, field_name(prefix, unit)))
    scale = {"steps": 1.0, "examples": 1 / pace.batch_size, "epochs": pace.steps_per_epoch}
    return value * scale[unit]
