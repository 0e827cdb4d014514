"""What the training step computes in float32 when a model computes in bfloat16, and why."""

from __future__ import annotations

import collections

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.experiment.cost import step_arguments
from avt_jax.models import scopes
from avt_jax.models.encoders.uniformer import UniFormer, UniFormerConfig
from avt_jax.profiling.program import programs

# {(part of the model, or the function that asks): why its products are in float32}.
IN_FLOAT32 = {
    scopes.HEADS: "logits and embeddings: small, and softmax, sigmoid and temperature magnify them",
    "contrastive_loss": "similarities divided by a temperature of down to 0.01",
    "matching.py": "the same similarities, to mine by",
    "activity.py": "sound levels in decibels: sums over many bins, with thresholds behind them",
}
RECIPES = ("vggsound", "epic_kitchens_100", "mbt_vggsound")


def wide_products(program, around=None):
    """{who: number} of the products with a float32 factor in a traced program of a part."""
    found = collections.Counter()
    for equation in program.eqns:
        name = equation.primitive.name
        types = {str(v.aval.dtype) for v in equation.invars if hasattr(v.aval, "dtype")}
        if name in ("dot_general", "conv_general_dilated") and "float32" in types:
            found[part_of(equation) or around or who(equation)] += 1
        for inner in programs(equation.params.values()):
            found += wide_products(inner, part_of(equation) or around)
    return found


def part_of(equation):
    return scopes.part_of(str(equation.source_info.name_stack))


def who(equation):
    frames = [
        (frame.file_name.rsplit("/", 1)[-1], frame.function_name)
        for frame in equation.source_info.traceback.frames
        if "/avt_jax/" in frame.file_name
    ]
    file, function = frames[0]
    return function if function in IN_FLOAT32 else file


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_product_in_float32_has_its_reason(recipe):
    config = load_config(f"{recipe}:smoke", {"model.precision": "bfloat16"})
    experiment = Experiment(config, classes={"label": 3})
    program = jax.make_jaxpr(experiment.step)(*step_arguments(experiment, 4)).jaxpr
    found = wide_products(program)
    assert found[scopes.HEADS], "nothing was found where something is known to be"
    assert set(found) <= set(IN_FLOAT32), found


def test_a_float32_model_is_seen():
    config = load_config("vggsound:smoke", {"model.precision": "float32"})
    experiment = Experiment(config, classes={"label": 3})
    program = jax.make_jaxpr(experiment.step)(*step_arguments(experiment, 4)).jaxpr
    assert set(wide_products(program)) > set(IN_FLOAT32)


def test_what_is_kept_for_the_backward_pass_is_in_bfloat16():
    sizes = dict(depth=(1, 1, 1, 1), dim=(8, 16, 16, 16), head_dim=8)
    model = UniFormer(UniFormerConfig(**sizes), dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)
    video = jnp.zeros((8, 4, 64, 64, 3))

    def run(state):
        return nnx.merge(graph, state).tokens(video, train=True)

    _, pull = jax.eval_shape(lambda state: jax.vjp(run, state), state)
    kept = collections.Counter()
    for leaf in jax.tree.leaves(pull):
        kept[str(leaf.dtype)] += leaf.size * leaf.dtype.itemsize
    # Parameters, the statistics of norms and of the softmax.
    assert kept["float32"] < 0.25 * kept["bfloat16"], kept
