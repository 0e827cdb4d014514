"""AVT from end to end: shapes, modalities, label sets, precision, gradients."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from avt_blocks import CLASSES, SPEC, block
from flax import nnx

from avt_jax import tree
from avt_jax.models.build import build_model


def make(**changes):
    return build_model(block(**changes), num_classes=CLASSES, input=SPEC, rngs=nnx.Rngs(0))


def shapes(**changes):
    """{path: shape} of the parameters."""
    params = tree.Skeleton(lambda: make(**changes)).params
    return {path: leaf.shape for path, leaf in params.items()}


@pytest.fixture
def inputs(rng):
    return (
        jnp.asarray(rng.normal(size=(2, 4, 32, 32, 3)), jnp.float32),
        jnp.asarray(rng.normal(size=(2, 48, 32)), jnp.float32),
    )


@pytest.fixture(scope="module")
def models():
    """{head: model}; none of the tests here changes one."""

    def build(head):
        skeleton = tree.Skeleton(lambda: make(head=head))
        return skeleton.merge(*random_variables(skeleton, np.random.default_rng(0)))

    return {head: build(head) for head in ("concat", "average")}


def draw_tokens(rng):
    """Random tokens of the shapes that `encode` gives: 2 x 1 x 1 video and 2 x 3 audio ones."""
    video, audio = rng.normal(size=(2, 2, 8)), rng.normal(size=(2, 6, 8))
    return jnp.asarray(video, jnp.float32), jnp.asarray(audio, jnp.float32)


@pytest.mark.parametrize("precision", ("float32", "bfloat16"))
def test_encode_fuse_project_in_shapes_and_types(precision):
    def run(video, audio):
        model = make(precision=precision)
        tokens = model.encode(video, audio)
        return tokens, model.fuse(*tokens), model.project(*tokens)

    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 4, 32, 32, 3), (2, 48, 32))]
    tokens, outputs, embeddings = jax.eval_shape(run, *given)
    chex.assert_shape(tokens, [(2, 2, 8), (2, 6, 8)])
    assert [value.dtype for value in tokens] == [jnp.dtype(precision)] * 2
    chex.assert_trees_all_equal_shapes_and_dtypes(
        dict(zip(("video", "audio"), tokens, strict=True)), outputs["tokens"]
    )
    # What losses read is float32 whatever the precision.
    for name, classes in CLASSES.items():
        chex.assert_shape(outputs["logits"][name], (2, classes))
    chex.assert_shape([*outputs["pooled"].values(), *embeddings], [(2, 8)] * 2 + [(2, 6)] * 2)
    for value in jax.tree.leaves((outputs["logits"], outputs["pooled"], embeddings)):
        assert value.dtype == jnp.float32


def random_variables(skeleton, rng):
    """Parameters and statistics: not the initial ones, which start some branches at next to 0."""
    params = {
        path: jnp.asarray(rng.normal(0, 0.2, leaf.shape), jnp.float32)
        for path, leaf in skeleton.params.items()
    }
    return params, {path: jnp.ones(leaf.shape) for path, leaf in skeleton.stats.items()}


def test_a_training_pass_in_bfloat16_is_finite_and_reaches_every_parameter(inputs, rng):
    skeleton = tree.Skeleton(lambda: make(precision="bfloat16"))

    @jax.jit
    @jax.grad
    def gradient(params, stats):
        model = skeleton.merge(params, stats)
        tokens = model.encode(*inputs, train=True)
        fused = model.fuse(*tokens, train=True)
        logits = fused["logits"] | {"match": model.match(fused["pooled"])}
        z_video, z_audio = model.project(*tokens)
        similarity = (z_video @ z_audio.T).mean() / jnp.exp(model.contrastive_log_tau[...])
        similarity += jnp.sin(model.contrastive_bias[...])
        return similarity + sum(jnp.sin(value).sum() for value in logits.values())

    params, stats = random_variables(skeleton, rng)
    for path, value in gradient(params, stats).items():
        assert value.dtype == jnp.float32, path
        assert jnp.isfinite(value).all() and (value != 0).any(), path


@pytest.mark.parametrize("name", ("video", "audio"))
@pytest.mark.parametrize("fusion", ("bottleneck", "merged"))
def test_one_modality_has_nothing_of_the_other(name, fusion):
    other = {"video": "audio", "audio": "video"}[name]
    found = shapes(modalities=name, fusion=fusion, **{f"{other}_encoder": None})
    assert any(path.startswith(f"{name}_encoder") for path in found)
    assert not any(other in path or "contrastive" in path for path in found)
    both = shapes(fusion=fusion)
    assert set(found) < set(both)


def test_a_projection_only_between_unequal_widths():
    found = shapes()
    assert "video_proj/kernel" not in found
    assert found["audio_proj/kernel"] == (12, 8)


@pytest.mark.parametrize("head", ("concat", "average"))
def test_fusing_without_one_modality(head, models, rng):
    model = models[head]
    video, audio = draw_tokens(rng)
    for given, name in (((video, None), "video"), ((None, audio), "audio")):
        outputs = model.fuse(*given)
        assert list(outputs["tokens"]) == list(outputs["pooled"]) == [name]
        chex.assert_shape([outputs["logits"]["verb"], outputs["logits"]["noun"]], [(2, 3), (2, 5)])
    with pytest.raises(ValueError, match="at least one modality"):
        model.fuse(None, None)


def test_encoding_without_one_modality(models, inputs):
    model = models["concat"]
    video, audio = model.encode(None, inputs[1])
    assert video is None
    chex.assert_shape(audio, (2, 6, 8))


def test_fusing_again_with_other_pairs(models, rng):
    # What a matching loss does: the tokens of one encoding, paired otherwise.
    model = models["concat"]
    video, audio = draw_tokens(rng)
    pairs = model.fuse(video, audio)["logits"]["verb"]
    crossed = model.fuse(video, audio[::-1])["logits"]["verb"]
    assert np.abs(pairs - crossed).max() > 1e-6
    again = model.fuse(video[::-1], audio[::-1])["logits"]["verb"]
    np.testing.assert_allclose(again, pairs[::-1], atol=1e-6)


def test_embeddings_have_length_one_and_a_finite_gradient_at_zero(models, rng):
    model = models["concat"]
    for value in model.project(*draw_tokens(rng)):
        np.testing.assert_allclose(jnp.linalg.norm(value, axis=-1), 1, rtol=1e-5)
    zeros = jnp.zeros((2, 2, 8)), jnp.zeros((2, 6, 8))
    gradient = jax.grad(lambda tokens: model.project(*tokens)[0].sum())(zeros)
    chex.assert_tree_all_finite(gradient)


def test_the_temperature_starts_where_the_config_says():
    config = block(temperature=0.2, modalities="av")
    log_tau = jax.jit(
        lambda: build_model(
            config, num_classes=CLASSES, input=SPEC, rngs=nnx.Rngs(0)
        ).contrastive_log_tau[...]
    )()
    chex.assert_shape(log_tau, ())
    np.testing.assert_allclose(jnp.exp(log_tau), 0.2, rtol=1e-6)
