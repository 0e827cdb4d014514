"""Config blocks: what is accepted, cast, refused, and how the refusal reads."""

import dataclasses
import math
from collections.abc import Mapping

import pytest

from avt_jax.errors import UserError
from avt_jax.settings import Block, fields_of, setting


@dataclasses.dataclass(frozen=True)
class Example(Block, where="config.example"):
    """All kinds of fields."""

    count: int = setting(2, "clips", at_least=1, at_most=9)
    rate: float = setting(0.5, "per second", above=0, below=1)
    name: str = setting("adamw", "optimiser", choices=("adamw", "sgd"))
    path: str = setting("x", "folder")
    flip: bool = setting(True, "mirror")
    span: tuple[float, float] = setting((0.1, 1.0), "share", at_least=0, at_most=1, ascending=True)
    parts: tuple[str, ...] = setting(("audio",), "what", choices=("audio", "video"))
    stride: int | tuple[int, int] = setting(16, "step", at_least=1)
    rules: tuple[tuple[str, str], ...] = setting(((".*", "replicate"),), "rules")
    weights: Mapping[str, float] = setting({"a": 1.0}, "of terms", at_least=0)


def test_values_are_cast_to_the_types_of_the_fields():
    # What JSON makes of a block: lists for tuples, whole numbers for floats.
    made = Example(rate=0.25, span=[0, 1], parts=[], stride=[10, 16], rules=[["a", "b"]])
    assert made.span == (0.0, 1.0) and isinstance(made.span[0], float)
    assert (made.parts, made.stride, made.rules) == ((), (10, 16), (("a", "b"),))
    assert isinstance(Example(weights={"a": 1}).weights["a"], float)
    assert {**made.to_dict()} == {**Example.of(made.to_dict()).to_dict()}
    hash(made.span), hash(made.rules)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("count", 0, "config.example.count is 0; give a whole number from 1 to 9."),
        ("count", True, "config.example.count is True; give a whole number"),
        ("count", 2.0, "config.example.count is 2.0; give a whole number"),
        ("rate", 1.0, "config.example.rate is 1.0; give a number above 0 and below 1."),
        ("rate", math.nan, "config.example.rate is nan"),
        ("rate", "0.5", "config.example.rate is '0.5'"),
        ("name", "adam", r"name is 'adam' \(did you mean 'adamw'\?\); give 'adamw' or 'sgd'."),
        ("path", "", "path is ''; give a text that is not empty."),
        ("flip", 1, "flip is 1; give True or False."),
        ("span", (1, 0.5), "give 2 numbers from 0 to 1, the smaller one first."),
        ("span", (0.5,), "give 2 numbers from 0 to 1"),
        ("parts", ("smell",), "give any of 'audio', 'video'."),
        ("parts", "audio", "parts is 'audio'"),
        ("stride", 0, "stride is 0; give a whole number of 1 or more, or 2 whole numbers"),
        ("weights", {"a": -1}, "give a number of 0 or more for each name"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(field, value, message):
    with pytest.raises(UserError, match=message):
        Example(**{field: value})


def test_an_unknown_field_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"config.example.cuont is not a field \(did you mean 'cou"):
        Example.of({"cuont": 3})
    with pytest.raises(UserError, match="config.here.x is not a field"):
        Example.of({"x": 3}, where="config.here")


def test_a_base_supplies_what_is_left_out():
    made = Example.of({"count": 3}, base=Example(rate=0.75))
    assert (made.count, made.rate) == (3, 0.75)


def test_fields_know_their_meaning_and_range():
    found = {field.name: field for field in fields_of(Example)}
    assert found["count"].doc == "clips" and found["count"].default == 2
    assert found["weights"].default == {"a": 1.0}
    # A block does not share its mapping with its class.
    assert Example().weights is not Example().weights
