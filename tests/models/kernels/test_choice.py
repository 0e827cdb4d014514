"""Which form runs where: by platform and shape, by name, as measured, one program for all."""

from __future__ import annotations

import dataclasses
import types

import jax
import jax.numpy as jnp
import pytest

from avt_jax.errors import UserError
from avt_jax.models.kernels import choice, depthwise_conv
from avt_jax.models.kernels.choice import Attend, Conv, Kernels, choose
from avt_jax.models.kernels.forms import REGISTRIES, candidates

CONV = Conv((8, 56, 56, 64), (5, 5, 5), "bfloat16")
ATTEND = Attend(1568, 1568, 5, 64, "bfloat16")


def test_all_rules_name_forms_that_there_are():
    assert set(choice.RULES) == set(REGISTRIES)
    for step, rules in choice.RULES.items():
        case = ATTEND if step == "attention" else CONV
        assert {*choice.PLATFORMS, "xla"} <= set(rules) <= set(choice.KERNELS)
        for dtype in ("float64", "float32", "bfloat16"):
            for rule in rules.values():
                assert rule(dataclasses.replace(case, dtype=dtype)) in REGISTRIES[step]
            for platform in choice.PLATFORMS:
                found = rules[platform](dataclasses.replace(case, dtype=dtype))
                assert found in candidates(step, platform)


@pytest.mark.parametrize(
    "step,case,cpu,tpu",
    [
        ("depthwise forward", CONV, "shifted", "packed"),
        ("depthwise input gradient", CONV, "shifted", "packed"),
        ("depthwise forward", Conv((8, 56, 56, 64), (3, 3, 3), "bfloat16"), "shifted", "dense"),
        ("depthwise forward", Conv((8, 28, 28, 128), (5, 5, 5), "bfloat16"), "shifted", "dense"),
        ("depthwise kernel gradient", CONV, "rows", "grouped"),
        ("depthwise forward", Conv((8, 14, 14, 320), (3, 3, 3), "bfloat16"), "shifted", "grouped"),
        ("depthwise forward", Conv((2, 9, 9, 16), (7, 7, 7), "float32"), "shifted", "packed"),
        ("attention", ATTEND, "heads", "splash"),
        ("attention", Attend(50, 50, 4, 64, "bfloat16"), "plain", "plain"),
        ("attention", Attend(1568, 1568, 5, 64, "float32"), "heads", "plain"),
        ("attention", Attend(1568, 1568, 5, 48, "bfloat16"), "heads", "plain"),
        ("attention", Attend(4, 100_000, 5, 64, "bfloat16"), "heads", "plain"),
    ],
)
def test_by_platform_and_shape(step, case, cpu, tpu):
    chosen = dict(choose(step, case))
    assert (chosen["cpu"], chosen["tpu"]) == (cpu, tpu)
    for platform in choice.PLATFORMS:
        named = dict(choose(step, case, platform))
        assert named[platform] == chosen[platform]
        # A Pallas kernel for TPUs is none for a CPU.
        elsewhere = chosen["cpu"] if chosen[platform] in choice.ONLY else chosen[platform]
        assert named["cpu"] == elsewhere
    assert hash(choose(step, case))


def test_a_program_holds_the_form_of_the_platform_it_is_lowered_for():
    x = jax.ShapeDtypeStruct((2, 3, 6, 6, 8), jnp.bfloat16)
    kernel = jax.ShapeDtypeStruct((3, 3, 3, 8), jnp.float32)
    traced = jax.jit(depthwise_conv.depthwise_conv3d).trace(x, kernel)
    convolutions = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text().count("convolution")
        for platform in ("cpu", "cuda", "tpu")
    }
    assert convolutions["cpu"] == convolutions["cuda"] == 0 < convolutions["tpu"]


def measured(kind, form="grouped"):
    step = "depthwise forward"
    return Kernels("auto", kind, ((step, str(CONV), form), ("attention", str(ATTEND), "plain")))


def test_what_was_measured_goes_before_the_rules_on_that_device_alone(monkeypatch):
    here = jax.devices()[0].device_kind
    plain = dict(choose("depthwise forward", CONV))
    found = dict(choose("depthwise forward", CONV, measured(here)))
    assert found == {**plain, "cpu": "grouped"}
    other = dataclasses.replace(CONV, size=(4, 56, 56, 64))
    assert dict(choose("depthwise forward", other, measured(here)))["cpu"] == "shifted"
    assert choose("depthwise forward", CONV, measured("TPU v9")) == tuple(plain.items())
    named = dataclasses.replace(measured(here), name="cpu")
    assert dict(choose("depthwise forward", CONV, named))["cpu"] == "shifted"
    # Compiled ahead of time for another device, under its mesh.
    mesh = types.SimpleNamespace(abstract_device=types.SimpleNamespace(device_kind="TPU v9"))
    monkeypatch.setattr(jax.sharding, "get_abstract_mesh", lambda: mesh)
    assert choose("depthwise forward", CONV, measured(here)) == tuple(plain.items())


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"'tpo' is not known \(did you mean 'tpu'\?\); give one"):
        choose("attention", ATTEND, "tpo")
    x = jnp.zeros((1, 2, 2, 2, 3))
    with pytest.raises(UserError, match="'shifted' is not known"):
        depthwise_conv.depthwise_conv3d(x, jnp.zeros((3, 3, 3, 3)), kernels="shifted")
