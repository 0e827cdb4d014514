"""Adapters beside attention's projections: numbers by hand, where they go, what they freeze."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from avt_blocks import CLASSES, SPEC, block
from flax import nnx

from avt_jax import tree
from avt_jax.errors import UserError
from avt_jax.models.build import build_model, resolve
from avt_jax.models.depths import layers_above
from avt_jax.models.inputs import InputSpec
from avt_jax.models.layers import linear
from avt_jax.models.layers.lora import (
    AdaptedLinear,
    LoRAConfig,
    adapters_of,
    frozen_beside_adapters,
    is_adapter,
    merged,
)
from avt_jax.models.layers.norms import BatchNorm
from avt_jax.tree.rngs import CountedRngs

AST = {"name": "ast", "variant": "tiny", "dim": 12, "depth": 3, "num_heads": 2}


def mbt(**changes):
    fields = {"name": "mbt", "dim": 8, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0}
    return fields | {"fusion_layer": 1} | changes


def build(fields):
    return build_model(fields, num_classes=CLASSES, input=SPEC, rngs=CountedRngs(0))


@functools.cache
def shapes(kind="avt", **changes):
    fields = block(**dict(changes)) if kind == "avt" else mbt(**dict(changes))
    return tree.Skeleton(lambda: build(fields))


def test_an_adapter_by_hand():
    base = linear(2, 2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    base.kernel[...] = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    base.bias[...] = jnp.array([10.0, 20.0])
    layer = AdaptedLinear(base, 1, 0.5, rngs=nnx.Rngs(0))
    layer.lora_a[...] = jnp.array([[2.0], [-1.0]])
    layer.lora_b[...] = jnp.array([[4.0, 6.0]])
    x = jnp.array([[3.0, 1.0]])
    # x W = (6, 10), x A = 5, x A B / 2 = (10, 15).
    np.testing.assert_array_equal(layer(x), [[26.0, 45.0]])

    graphdef, params = nnx.split(layer, nnx.Param)

    def loss(params, x):
        return (nnx.merge(graphdef, params)(x) * jnp.array([1.0, -1.0])).sum()

    to_params, to_x = jax.grad(loss, argnums=(0, 1))(params, x)
    # g = (1, -1): g B^T = -2; at A x^T (-2) / 2, at B (x A)^T g / 2, at x g W^T - 2 / 2 A^T.
    np.testing.assert_array_equal(to_params["lora_a"][...], [[-3.0], [-1.0]])
    np.testing.assert_array_equal(to_params["lora_b"][...], [[2.5, -2.5]])
    np.testing.assert_array_equal(to_params["kernel"][...], [[3.0, -3.0], [1.0, -1.0]])
    np.testing.assert_array_equal(to_x, [[-1.0 - 2.0, -1.0 + 1.0]])

    variables = {f"layer/{name}": getattr(layer, name)[...] for name in ("kernel", "lora_a")}
    variables |= {"layer/lora_b": layer.lora_b[...], "layer/bias": layer.bias[...]}
    found = merged(variables, {"layer": adapters_of(layer)[""]})
    assert found.keys() == {"layer/kernel", "layer/bias"}
    np.testing.assert_array_equal(found["layer/kernel"], [[5.0, 8.0], [1.0, 1.0]])
    np.testing.assert_array_equal(x @ found["layer/kernel"] + base.bias[...], layer(x))


def test_a_layer_in_bfloat16_has_parameters_and_gradients_in_float32():
    base = linear(8, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(AdaptedLinear(base, 2, 2.0, rngs=nnx.Rngs(0)), nnx.Param)
    x = jnp.ones((3, 8), jnp.bfloat16)
    out = nnx.merge(graphdef, params)(x)
    assert out.dtype == jnp.bfloat16
    grads = jax.grad(lambda p: nnx.merge(graphdef, p)(x).astype(jnp.float32).sum())(params)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, grads))} == {jnp.dtype("float32")}
    # B is 0, so only B has a gradient; A is within 1 / sqrt(fan in).
    assert not np.any(grads["lora_a"][...]) and np.any(grads["lora_b"][...])
    assert 0 < np.abs(params["lora_a"][...]).max() <= 8**-0.5


@pytest.mark.parametrize("kind", ("avt", "mbt"))
def test_a_model_starts_as_without_adapters(kind):
    fields = block(audio_encoder=AST, num_blocks=1) if kind == "avt" else mbt(depth=2)
    fields = fields | {"modalities": "audio"}
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((1, 48, 32), np.float32)

    @jax.jit
    def both(audio):
        found = []
        for rank in (0, 4):
            model = build(fields | {"lora_rank": rank})
            params, _ = tree.split(model)
            base = {path: value for path, value in params.items() if not is_adapter(path)}
            found.append((model.fuse(*model.encode(None, audio))["logits"], base))
        return found

    plain, adapted = both(audio)
    jax.tree.map(np.testing.assert_array_equal, plain, adapted)


def test_where_they_go():
    found = set(shapes(lora_rank=4).params) - set(shapes().params)
    layers = {path.rpartition("/")[0] for path in found}
    assert layers == {
        f"{tower}/0/attn/{name}"
        for tower in ("video_encoder/blocks3", "video_encoder/blocks4", "audio_encoder/blocks")
        for name in ("qkv", "proj")
    }
    params = shapes(lora_rank=4).params
    assert params["audio_encoder/blocks/0/attn/qkv/lora_a"].shape == (12, 4)
    assert params["audio_encoder/blocks/0/attn/qkv/lora_b"].shape == (4, 36)
    found = shapes(lora_rank=4, fusion="cross_attention", lora_on=("^fusion/audio.*/1/cross",))
    assert {path.rpartition("/")[0] for path in found.params if is_adapter(path)} == {
        f"fusion/audio_blocks/1/cross/{name}" for name in ("q", "kv", "proj")
    }
    towers = {path for path in shapes("mbt", lora_rank=4).params if is_adapter(path)}
    # Two towers of three blocks, two layers each, two matrices.
    assert len(towers) == 2 * 3 * 2 * 2 and {path.split("/")[0] for path in towers} == {
        "video",
        "audio",
    }


def test_layers_with_and_without_adapters_are_not_one_stack():
    made = shapes("mbt", lora_rank=4, lora_on=("^video/blocks/2/", "^audio/"))
    stacked = jax.eval_shape(made.packing.stack, made.params)
    assert "video/blocks/2/attn/qkv/lora_a" in stacked
    assert "video/blocks/0/attn/qkv/kernel" in stacked
    assert "audio/blocks/each/attn/qkv/lora_a" in stacked
    # The whole of the part is frozen, the blocks without adapters with it.
    assert "video/blocks/0/attn/qkv/kernel" in frozen_beside_adapters(made.params)


def test_the_scale_is_alpha_over_the_rank():
    for given, scale in (({"lora_rank": 4}, 4.0), ({"lora_rank": 4, "lora_alpha": 2.0}, 0.5)):
        model = nnx.eval_shape(lambda given=given: build(block(**given)))
        assert {adapter.scale for adapter in adapters_of(model).values()} == {scale}


def test_what_is_frozen():
    paths = shapes(lora_rank=4).params
    frozen = frozen_beside_adapters(paths)
    assert {path.split("/")[0] for path in frozen} == {"video_encoder", "audio_encoder"}
    trained = {path for path in set(paths) - frozen if "_encoder/" in path}
    assert trained and all(is_adapter(path) for path in trained)
    assert not frozen_beside_adapters(shapes().params)
    one = frozen_beside_adapters(shapes(lora_rank=4, lora_on=("^audio_encoder/",)).params)
    assert {path.split("/")[0] for path in one} == {"audio_encoder"}
    # The whole of a shared encoder, with the embedding of sound that lies beside it.
    shared = frozen_beside_adapters(shapes("mbt", lora_rank=4, share_encoder=True).params)
    assert {path.split("/")[0] for path in shared} == {"video", "audio"}
    assert "audio/embed/proj/kernel" in shared and "norm/scale" not in shared


def test_adapters_learn_at_their_layers_rate():
    above = layers_above(shapes("mbt", lora_rank=4).params)
    assert above["video/blocks/0/attn/qkv/lora_a"] == 2
    for path, number in above.items():
        if is_adapter(path):
            assert number == above[path.replace("lora_a", "kernel").replace("lora_b", "kernel")]


def test_batch_norm_beside_adapters_keeps_its_statistics():
    def frozen(**changes):
        model = nnx.eval_shape(lambda: build(block(**changes)))
        modules = (module for _, module in nnx.iter_modules(model))
        return {module.frozen for module in modules if isinstance(module, BatchNorm)}

    assert frozen() == {False} and frozen(lora_rank=2) == {True}
    # Only the parts that hold adapters.
    assert frozen(lora_rank=2, lora_on=("^audio_encoder/",)) == {False}


def random(skeleton):
    """Every number is another one."""
    rng = np.random.default_rng(0)
    return tuple(
        {
            path: rng.uniform(0.5, 1.5, leaf.shape).astype("f4")
            if path.endswith(("scale", "var"))
            else 0.3 * rng.standard_normal(leaf.shape).astype("f4")
            for path, leaf in group.items()
        }
        for group in (skeleton.params, skeleton.stats)
    )


@pytest.mark.parametrize("kind", ("avt", "mbt"))
def test_merged_and_stacked_is_as_unmerged(kind):
    split = block(audio_encoder=AST)
    split["video_encoder"] = split["video_encoder"] | {"split": True}
    fields = split if kind == "avt" else mbt(fusion="merged")
    adapted, plain = (
        tree.Skeleton(lambda rank=rank: build(fields | {"lora_rank": rank})) for rank in (3, 0)
    )
    params, stats = random(adapted)
    model = adapted.merge(adapted.params, adapted.stats)
    without = merged(params, adapters_of(model))
    assert without.keys() == plain.params.keys()
    # A tower of layers with adapters still runs as one in a loop.
    stacked = adapted.packing.stack(params)
    tower = "audio_encoder" if kind == "avt" else "video"
    assert stacked[f"{tower}/blocks/each/attn/proj/lora_a"].shape[0] == 3
    rng = np.random.default_rng(1)
    given = rng.standard_normal((2, 4, 32, 32, 3)), rng.standard_normal((2, 48, 32))
    given = tuple(value.astype("f4") for value in given)

    @jax.jit
    def outputs(params, without, packed, stats, packed_stats):
        forms = (
            adapted.merge(params, stats),
            plain.merge(without, stats),
            adapted.merge(packed, packed_stats),
        )
        return [model.fuse(*model.encode(*given))["logits"] for model in forms]

    packing = adapted.packing
    one, two, three = outputs(params, without, packing.pack(params), stats, packing.pack(stats))
    for name, logits in one.items():
        # Logits are about 1; the additions come in another order.
        np.testing.assert_allclose(two[name], logits, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(three[name], logits, atol=1e-5, rtol=1e-5)
    # The adapters do something.
    off = {path: 0 * value if is_adapter(path) else value for path, value in params.items()}
    other = outputs(off, without, packing.pack(off), stats, packing.pack(stats))[0]
    assert max(np.abs(other[name] - one[name]).max() for name in one) > 1e-2


@pytest.mark.parametrize(
    ("fields", "words"),
    (
        (block(lora_rank=-1), "lora_rank is -1; give a whole number of 0 or more"),
        (block(lora_rank=9), "lora_rank is 9, larger than the smaller side of video.*; give 8"),
        (block(lora_alpha=0.0), "lora_alpha is 0.0; give a number above 0"),
        (block(lora_rang=1), r"lora_rang is not a field \(did you mean 'lora_rank'"),
        (mbt(lora_rang=1), r"lora_rang is not a field \(did you mean 'lora_rank'"),
        (block(lora_rank=1, lora_on=("(",)), r"lora_on: '\(' is no regular expression"),
        (block(lora_rank=1, lora_on=()), "lora_on is empty and lora_rank is 1"),
        (
            block(lora_rank=1, lora_on=("^audio_encoder/", "attn/qvk$")),
            r"'attn/qvk\$' matches no projection of attention.*it has some in audio_encoder, fu",
        ),
        (
            block(lora_rank=1, modalities="audio", lora_on=("^video_encoder/",)),
            "matches no projection.*it has some in audio_encoder, fusion",
        ),
    ),
)
def test_mistakes_are_named(fields, words):
    with pytest.raises(UserError, match=words):
        nnx.eval_shape(lambda: build(fields))


def test_cached_tokens_have_nothing_to_adapt():
    tokens = {f"{name}_encoder": {"name": "tokens"} for name in ("video", "audio")}
    given = dict(num_classes=CLASSES, rngs=nnx.Rngs(0))
    spec = InputSpec(**(vars(SPEC) | {"video_tokens": (3, 8), "audio_tokens": (5, 12)}))
    with pytest.raises(UserError, match="lora_rank is 2; cached tokens are read without encoders"):
        build_model(block(lora_rank=2, **tokens), input=spec, **given)


def test_a_block_from_before_has_no_adapters():
    before = {name: value for name, value in resolve(block()).items() if "lora" not in name}
    assert resolve(before) == resolve(block())
    assert LoRAConfig().lora_rank == 0 and resolve(mbt())["lora_rank"] == 0
    assert re.search(LoRAConfig().lora_on[0], "video_proj/kernel") is None
