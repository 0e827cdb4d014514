"""What is known of weights beside their arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from avt_jax.conversion.files.reading import Say, silent
from avt_jax.errors import UserError


@dataclass(frozen=True)
class Hints:
    """What helps to tell which model weights are of.

    Attributes:
      mel_bins: of the spectrograms, as the user says; None = nobody says.
      published: config.json of Hugging Face; {} = there is none.
      say: is told what is guessed, and where the rest comes from.
    """

    mel_bins: int | None = None
    published: Mapping[str, Any] = field(default_factory=dict)
    say: Say = silent

    def whole(self, name: str) -> int | None:
        """A whole number > 0 that config.json has under a name; None where it does not.

        Raises:
          UserError: it is another value.
        """
        value = self.published.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
            raise UserError(f"config.json says that {name} is {value!r}; give the published one.")
        return value

    def number(self, name: str) -> float | None:
        """The same of any number >= 0."""
        value = self.published.get(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e6:
            raise UserError(f"config.json says that {name} is {value!r}; give the published one.")
        return float(value)
