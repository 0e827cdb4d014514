"""Weights that fit a model by their shapes, and of which it would make something else.

Sixteen heads of 48 numbers have arrays of the same shapes as twelve of 64. What arrays do not tell
is in the stored config of converted weights, and is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from avt_jax.errors import UserError

# A smaller difference of what is added to a variance changes no feature by more than 1e-4, as
# those of a norm's input are 0.01 or more: transformers has 1e-12 where AST was trained with 1e-6.
_SAME_EPS = 1e-6


def check_same(
    stored: Mapping[str, Any], config: Any, fields: Sequence[str], where: str, advice: str = ""
) -> None:
    """Compares fields of a config that the shapes of arrays do not tell.

    Args:
      stored: config of the weights; what is missing in it is not compared.
      config: of the model that is to start from them, a dataclass.
      fields: their names.
      where: place of the config, such as "config.model.audio_encoder".
      advice: what else helps, at the end of the sentence.

    Raises:
      UserError: they differ; names all that do.
    """
    different = {
        name: (stored[name], getattr(config, name))
        for name in fields
        if name in stored and not _same(name, stored[name], getattr(config, name))
    }
    if different:
        told = " and ".join(
            f"{name} {_shown(one)}, not {_shown(other)}" for name, (one, other) in different.items()
        )
        options = " ".join(
            f"--{where}.{name}={_shown(one)}" for name, (one, _) in different.items()
        )
        raise UserError(
            f"the weights were trained with {told}: they fit by their shapes alone and would "
            f"compute something else; give {options}, or other weights{advice}."
        )


def _same(name: str, one: Any, other: Any) -> bool:
    if name.endswith("eps"):
        return abs(one - other) <= _SAME_EPS
    if name == "stride":
        return _pair(one) == _pair(other)
    return bool(_plain(one) == _plain(other))


def _pair(stride: Any) -> tuple[Any, ...]:
    return tuple(stride) if isinstance(stride, list | tuple) else (stride, stride)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"({','.join(map(str, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)
