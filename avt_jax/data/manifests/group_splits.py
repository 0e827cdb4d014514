"""Seeded division of groups of clips into train, val and test."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

from avt_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SplitFractions:
    """Share of each class's groups that is held out; the rest is for training.

    Attributes:
      val: in [0, 1), share for validation.
      test: in [0, 1), share for testing; val + test < 1.
    """

    val: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise UserError(
                f"fractions val {self.val:g} and test {self.test:g} must each be in [0, 1) and add "
                "up to less than 1, so that something is left to train on."
            )


def assign_splits(
    classes: Mapping[str, Sequence[str]], fractions: SplitFractions, seed: int
) -> dict[str, str]:
    """Divides the groups of every class by the same fractions.

    A class with at least three groups gets at least one in every split that has a share. The
    division depends on the groups' names and the seed only.

    Args:
      classes: names of the groups per class; a name must not occur twice.
      fractions: held-out shares.
      seed: another seed, another division.

    Returns:
      The split of every group.
    """
    splits = {}
    for groups in classes.values():
        # A hash orders the groups instead of a generator: no file system order, no library
        # version can change the division.
        ordered = sorted(
            groups,
            key=lambda name: hashlib.sha256(
                f"{seed}:{name}".encode("utf-8", "surrogateescape")
            ).digest(),
        )
        num_test, num_val = (_share(len(ordered), part) for part in (fractions.test, fractions.val))
        for rank, name in enumerate(ordered):
            held_out = "test" if rank < num_test else "val"
            splits[name] = held_out if rank < num_test + num_val else "train"
    return splits


def _share(count: int, fraction: float) -> int:
    """At least one group where a share is asked for and two others remain."""
    return max(round(count * fraction), int(fraction > 0 and count >= 3))
