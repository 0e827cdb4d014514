"""The name tables: every leaf on both sides is accounted for."""

import numpy as np
import pytest

from avt_jax.conversion.mapping import Rule, convert, dense_rules, norm_rules, place
from avt_jax.errors import UserError

RULES = [
    *norm_rules(r"(b\.\d)\.norm", r"\1.norm"),
    *dense_rules(r"(b\.\d)\.q", r"\1.qk", (0, 2)),
    *dense_rules(r"(b\.\d)\.k", r"\1.qk", (1, 2)),
    Rule(r"head\..*", None),
]
SHAPES = {
    "b/0/norm/scale": (3,),
    "b/0/norm/bias": (3,),
    "b/0/qk/kernel": (3, 4),
    "b/0/qk/bias": (4,),
}


def state_dict():
    return {
        "b.0.norm.weight": np.full(3, 2.0),
        "b.0.norm.bias": np.zeros(3),
        "b.0.q.weight": np.arange(6.0).reshape(2, 3),
        "b.0.q.bias": np.array([1.0, 2.0]),
        "b.0.k.weight": 10 + np.arange(6.0).reshape(2, 3),
        "b.0.k.bias": np.array([3.0, 4.0]),
        "head.weight": np.ones((7, 3)),
    }


def test_parts_are_joined_and_what_is_left_out_is_said():
    arrays, left_out = convert(RULES, state_dict(), SHAPES)
    assert list(arrays) == list(SHAPES) and left_out == ["head.weight"]
    np.testing.assert_array_equal(arrays["b/0/qk/bias"], [1, 2, 3, 4])
    np.testing.assert_array_equal(
        arrays["b/0/qk/kernel"], [[0, 3, 10, 13], [1, 4, 11, 14], [2, 5, 12, 15]]
    )


@pytest.mark.parametrize(
    ("change", "words"),
    (
        ({"b.0.k.bias": None}, "nothing fills b/0/qk/bias"),
        ({"b.0.norm.weight": None}, "nothing fills b/0/norm/scale"),
        ({"b.0.extra": np.zeros(2)}, r"no place for b\.0\.extra"),
        # The rule knows the name, the model has no such block.
        ({"b.1.norm.bias": np.zeros(3)}, r"no place for b\.1\.norm\.bias"),
        ({"b.0.norm.bias": np.zeros(4)}, r"wrong shape b\.0\.norm\.bias \(4,\) for b/0/norm/bias"),
        # As many numbers, but the other way round.
        ({"b.0.q.weight": np.zeros((3, 2))}, r"wrong shape b\.0\.q\.weight \(3, 2\)"),
        ({"b.0.q.weight": np.zeros(6)}, r"wrong shape b\.0\.q\.weight \(6,\)"),
        ({"b.0.norm.bias": np.array(["a", "b", "c"])}, r"wrong shape b\.0\.norm\.bias"),
    ),
)
def test_what_does_not_fit_is_listed(change, words):
    given = {k: v for k, v in (state_dict() | change).items() if v is not None}
    with pytest.raises(UserError, match=words):
        convert(RULES, given, SHAPES)


def test_all_faults_are_told_at_once_and_long_lists_end():
    given = {f"unknown{i}": np.zeros(1) for i in range(20)} | {"b.0.norm.bias": np.zeros(5)}
    with pytest.raises(UserError) as caught:
        convert(RULES, given, SHAPES)
    said = str(caught.value)
    assert "b/0/qk/kernel" in said and "unknown11 and 8 more" in said and "(5,)" in said


def test_two_names_for_one_place():
    rules = [Rule(r"a|b", "c")]
    with pytest.raises(UserError, match=r"b \(a second one for c\)"):
        convert(rules, {"a": np.zeros(1), "b": np.zeros(1)}, {"c": (1,)})


def test_place():
    assert place(RULES, "nobody") == (None, None)
    assert place(RULES, "b.3.norm.weight")[1] == "b/3/norm/scale"
    assert place(RULES, "head.bias")[1] is None
