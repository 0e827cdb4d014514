"""Config blocks: frozen dataclasses whose fields carry their default, meaning and allowed range.

    @dataclass(frozen=True)
    class TrainConfig(Block, where="config.train"):
        batch_size: int = setting(32, "clips per step, over all devices", at_least=1)

That line is all there is to know of a field: it makes the recipes' defaults, checks every value
when a block is made, and is what `avt config --doc` prints. Own code and not pydantic, because a
block must also be a static argument of a jitted function (hashable, lists from JSON made tuples),
and because a refusal is to be one sentence that names the field as the user writes it.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Self

from avt_jax.errors import UserError, nearest

Choices = Collection[Any] | Callable[[], Collection[Any]]

_KEY = "setting"


@dataclasses.dataclass(frozen=True)
class _Rule:
    doc: str
    listed: Choices = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    ascending: bool = False
    empty: bool = False

    @property
    def choices(self) -> tuple[Any, ...]:
        return tuple(self.listed() if callable(self.listed) else self.listed)


def setting(
    default: Any,
    doc: str,
    *,
    choices: Choices = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    ascending: bool = False,
    empty: bool = False,
) -> Any:
    """A field of a config block.

    Args:
      default: its value where a recipe gives none.
      doc: what it means, with its unit; one or more sentences without the field's name.
      choices: the only allowed values; of a tuple's items. A function is called when they are
        needed, for a registry that stands further down in its module.
      at_least: smallest allowed number; of a tuple's or mapping's items.
      above: numbers must be larger than this.
      at_most: largest allowed number.
      below: numbers must be smaller than this.
      ascending: the numbers of a tuple must not decrease.
      empty: a text may be "".
    """
    rule = _Rule(doc, choices, at_least, above, at_most, below, ascending, empty)
    metadata = {_KEY: rule}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Block:
    """Base of the config blocks; give its place in the config as the class argument `where`.

    Making one checks every field. A block with rules that concern several fields has a method
    `check`, called afterwards.

    Raises:
      UserError: a value of the wrong type or out of its range.
    """

    where: ClassVar[str] = "config"

    def __init_subclass__(cls, *, where: str | None = None, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if where is not None:
            cls.where = where

    def __post_init__(self) -> None:
        for field in fields_of(type(self)):
            value = getattr(self, field.name)
            try:
                object.__setattr__(self, field.name, _cast(value, field.type, field.rule))
            except ValueError:
                close = nearest(str(value), map(str, field.rule.choices))
                raise UserError(
                    f"{self.where}.{field.name} is {value!r}{close}; give {field.allowed}."
                ) from None
        self.check()

    def check(self) -> None:
        """Checks what concerns several fields; raises UserError."""

    @classmethod
    def of(cls, values: Mapping[str, Any], *, base: Self | None = None, where: str = "") -> Self:
        """Makes the block from a mapping.

        Args:
          values: {field: value}.
          base: supplies what `values` leaves out; None takes the fields' defaults.
          where: the block's place in the config, for messages; "" = the class's own.

        Raises:
          UserError: an unknown field (the nearest one is named), or a bad value.
        """
        names = [field.name for field in fields_of(cls)]
        for name in values:
            if name not in names:
                raise UserError(
                    f"{where or cls.where}.{name} is not a field{nearest(name, names)}; "
                    f"the fields are {', '.join(names)}."
                )
        if base is None:
            return cls(**values)
        # Every block is a dataclass; their base alone is none.
        return dataclasses.replace(base, **values)  # type: ignore[type-var]

    def to_dict(self) -> dict[str, Any]:
        """{field: value}, in the order of the fields."""
        return {field.name: getattr(self, field.name) for field in fields_of(type(self))}


@dataclasses.dataclass(frozen=True)
class Field:
    """What is known of a field.

    Attributes:
      name: of the field.
      type: annotation.
      default: of a block made without it.
      rule: range and choices.
    """

    name: str
    type: Any
    default: Any
    rule: _Rule

    @property
    def doc(self) -> str:
        """What the field means."""
        return self.rule.doc

    @property
    def allowed(self) -> str:
        """The allowed values in words, to stand after "give"."""
        words = _in_words(self.type, self.rule)
        # A unit says more than "a number": fields are named after theirs.
        unit = next((unit for end, unit in _UNITS.items() if self.name.endswith(end)), None)
        return words.replace("a number", unit, 1) if unit else words


def fields_of(block: type[Any]) -> tuple[Field, ...]:
    """The fields of a block's class, in order."""
    hints = typing.get_type_hints(block)
    found = []
    for field in dataclasses.fields(block):
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        found.append(Field(field.name, hints[field.name], default, field.metadata[_KEY]))
    return tuple(found)


def _cast(value: Any, kind: Any, rule: _Rule) -> Any:
    """The value in the field's type; ValueError where it has another or is out of range."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        for one in args:
            try:
                return _cast(value, one, rule)
            except ValueError:
                continue
        raise ValueError
    if origin is tuple:
        return _tuple(value, args, rule)
    if origin is not None:  # a mapping of numbers
        return {str(name): _cast(one, args[1], rule) for name, one in dict(value).items()}
    if kind is type(None):
        return _only(value, value is None)
    if kind is bool:
        return _only(value, isinstance(value, bool))
    if kind is str:
        is_text = isinstance(value, str) and bool(value or rule.empty or rule.choices)
        return _only(value, is_text and (not rule.choices or value in rule.choices))
    is_number = isinstance(value, int) or (kind is float and isinstance(value, float))
    if isinstance(value, bool) or not is_number or not _within(value, rule):
        raise ValueError
    return kind(value)


def _only(value: Any, right: bool) -> Any:
    if not right:
        raise ValueError
    return value


def _tuple(value: Any, kinds: tuple[Any, ...], rule: _Rule) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise ValueError
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise ValueError
    found = tuple(_cast(one, kind, rule) for one, kind in zip(value, kinds, strict=True))
    return _only(found, not rule.ascending or list(found) == sorted(found))


def _within(value: float, rule: _Rule) -> bool:
    return (
        math.isfinite(value)
        and (rule.at_least is None or value >= rule.at_least)
        and (rule.above is None or value > rule.above)
        and (rule.at_most is None or value <= rule.at_most)
        and (rule.below is None or value < rule.below)
        and (not rule.choices or value in rule.choices)
    )


_UNITS = {"_sec": "seconds", "_db": "dB"}
_WORDS = {int: "whole number", float: "number", bool: "True or False", str: "text"}


def _in_words(kind: Any, rule: _Rule) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        words = [_in_words(one, rule) for one in args]
        return ", or ".join(words)
    if origin is tuple:
        return _tuple_in_words(args, rule)
    if origin is not None:
        return f"a {_WORDS[args[1]]} {_range(rule)} for each name"
    if kind is type(None):
        return "None"
    if rule.choices:
        words = [repr(choice) for choice in rule.choices]
        return " or ".join(words) if len(words) < 3 else f"one of {', '.join(words)}"
    if kind is bool:
        return _WORDS[bool]
    if kind is str:
        return "a text" if rule.empty else "a text that is not empty"
    return f"a {_WORDS[kind]} {_range(rule)}".rstrip()


def _tuple_in_words(args: tuple[Any, ...], rule: _Rule) -> str:
    any_length = len(args) == 2 and args[1] is Ellipsis
    order = ", the smaller one first" if rule.ascending else ""
    number = "any number of" if any_length else f"{len(args)}"
    if rule.choices:
        return f"{'any' if any_length else number} of {', '.join(map(repr, rule.choices))}"
    if typing.get_origin(args[0]) is tuple:
        inner = typing.get_args(args[0])
        if set(inner) == {str}:
            return f"{number} groups of {len(inner)} texts"
        return f"{number} groups of {' and '.join(_in_words(kind, rule) for kind in inner)}"
    if args[0] is str:
        return f"{number} texts"
    return f"{number} {_WORDS[args[0]]}s {_range(rule)}".rstrip() + order


def _range(rule: _Rule) -> str:
    low = rule.at_least if rule.at_least is not None else rule.above
    high = rule.at_most if rule.at_most is not None else rule.below
    if low is None and high is None:
        return ""
    if rule.at_least is not None and rule.at_most is not None:
        return f"from {low:g} to {high:g}"
    words = []
    if low is not None:
        words.append(f"of {low:g} or more" if rule.at_least is not None else f"above {low:g}")
    if high is not None:
        words.append(f"up to {high:g}" if rule.at_most is not None else f"below {high:g}")
    return " and ".join(words)
