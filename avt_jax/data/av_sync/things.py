"""What acts in a clip of AV-Sync: balls, hammers, lamps, mouths, each of a size and a make.

Size and make are seen and heard: a larger ball sounds lower, one of metal rings longer.
"""

from __future__ import annotations

import dataclasses

import numpy as np

THINGS = ("ball", "hammer", "lamp", "mouth")


@dataclasses.dataclass(frozen=True)
class Make:
    """A material, a colour of light, or a vowel.

    Attributes:
      name: of it.
      color_c: red, green and blue in [0, 255].
      partials: frequencies over the lowest; of a mouth its formants in Hz.
      decay_sec: time in which a sound falls to 1 / e.
      pitch: multiplies the frequency that the size gives.
      openness: of a mouth, height of the opening over its width.
    """

    name: str
    color_c: tuple[float, float, float]
    partials: tuple[float, ...]
    decay_sec: float
    pitch: float = 1.0
    openness: float = 1.0


_WOOD = Make("wood", (196.0, 138.0, 76.0), (1.0, 2.57, 4.95), 0.06)
_METAL = Make("metal", (214.0, 218.0, 226.0), (1.0, 2.76, 5.4, 8.93), 0.3, 1.5)
_RUBBER = Make("rubber", (226.0, 60.0, 64.0), (1.0, 1.59), 0.05, 0.45)
_GLASS = Make("glass", (120.0, 208.0, 236.0), (1.0, 2.32, 4.25), 0.18, 2.2)

MAKES: dict[str, tuple[Make, ...]] = {
    "ball": (_WOOD, _METAL, _RUBBER, _GLASS),
    "hammer": (
        dataclasses.replace(_METAL, name="steel", partials=(1.0, 1.51, 2.32, 3.9), decay_sec=0.12),
        dataclasses.replace(_WOOD, name="mallet", partials=(1.0, 1.73, 2.9), decay_sec=0.04),
    ),
    "lamp": (
        Make("red", (255.0, 80.0, 60.0), (1.0,), 0.12, 0.7),
        Make("green", (90.0, 255.0, 110.0), (1.0, 3.0), 0.12),
        Make("blue", (110.0, 140.0, 255.0), (1.0, 3.0, 5.0), 0.12, 1.45),
    ),
    "mouth": (
        Make("a", (232.0, 184.0, 150.0), (750.0, 1250.0, 2500.0), 0.15, 1.0, 1.0),
        Make("i", (232.0, 184.0, 150.0), (290.0, 2250.0, 3000.0), 0.15, 1.0, 0.35),
        Make("u", (232.0, 184.0, 150.0), (320.0, 800.0, 2300.0), 0.15, 1.0, 0.6),
    ),
}
"""{thing: its makes}."""


@dataclasses.dataclass(frozen=True)
class Thing:
    """One thing in a clip.

    Attributes:
      kind: one of THINGS.
      make: one of its makes.
      size: in [0, 1], small to large.
    """

    kind: str
    make: Make
    size: float


def draw_thing(kind: str, rng: np.random.Generator) -> Thing:
    """A thing of random make and size; takes the same numbers from `rng` for every kind."""
    place, size = rng.uniform(size=2)
    makes = MAKES[kind]
    return Thing(kind, makes[int(place * len(makes))], float(size))
