"""MBT: sizes of the original, what its options change, and its place in the framework.

The numbers of the original are in tests/conversion/test_mbt_parity.py.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from avt_jax import tree
from avt_jax.errors import UserError
from avt_jax.models.build import abilities, build_model
from avt_jax.models.inputs import InputSpec
from avt_jax.models.mbt import MBT, MBTConfig

TINY = MBTConfig(dim=8, depth=3, num_heads=2, mlp_ratio=2.0, fusion_layer=1, num_bottleneck=2)
SPEC = InputSpec(num_frames=4, frame_size_px=32, fbank_frames=48, mel_bins=32)
BASE = dict(num_frames=8, frame_size_px=224, fbank_frames=800, mel_bins=128)


def make(spec=SPEC, seed=0, **changes):
    config = dataclasses.replace(TINY, **changes)
    model = MBT(config, num_classes={"label": 3}, rngs=nnx.Rngs(seed), **spec.of_clip())
    return model


@pytest.fixture
def clip(rng):
    video = jnp.asarray(rng.normal(size=(2, 4, 32, 32, 3)), jnp.float32)
    return video, jnp.asarray(rng.normal(size=(2, 48, 32)), jnp.float32)


@pytest.mark.parametrize(
    ("modalities", "count"), (("av", 173_215_247), ("audio", 86_360_591), ("video", 87_257_615))
)
def test_parameter_counts_of_the_original(modalities, count):
    config = MBTConfig(modalities=modalities, tubelet_frames=1)
    skeleton = tree.Skeleton(
        lambda: MBT(config, num_classes={"label": 527}, rngs=nnx.Rngs(0), **BASE)
    )
    assert tree.parameter_count(skeleton.params) == count


def test_nothing_crosses_before_the_fusion_layer(clip):
    video, audio = clip
    model = make()
    tokens = model.encode(video, audio)
    chex.assert_shape(tokens, ((2, 1 + 2 * 2 * 2, 8), (2, 1 + 3 * 2, 8)))
    np.testing.assert_array_equal(model.encode(video, None)[0], tokens[0])
    np.testing.assert_array_equal(model.encode(None, audio)[1], tokens[1])


@pytest.mark.parametrize("fusion", ["bottleneck", "merged"])
@pytest.mark.parametrize("share_encoder", [False, True])
def test_the_fusion_lets_audio_change_the_video(fusion, share_encoder, clip):
    video, audio = clip
    model = make(fusion=fusion, share_encoder=share_encoder)
    with_audio = model.fuse(*model.encode(video, audio))
    other = model.fuse(*model.encode(video, audio + 1))
    assert jnp.abs(with_audio["pooled"]["video"] - other["pooled"]["video"]).max() > 1e-7
    chex.assert_shape(with_audio["tokens"]["audio"], (2, 1 + 3 * 2, 8))
    apart = make(fusion=fusion, share_encoder=share_encoder, fusion_layer=3)
    one, two = (apart.fuse(*apart.encode(video, a))["pooled"]["video"] for a in (audio, audio + 1))
    np.testing.assert_array_equal(one, two)


def test_without_bottlenecks_in_evaluation_only(clip):
    model = make(test_with_bottlenecks=False)
    tokens = model.encode(*clip)
    exchanged = make().fuse(*tokens)["logits"]["label"]
    evaluated = model.fuse(*tokens)["logits"]["label"]
    trained = model.fuse(*tokens, train=True)["logits"]["label"]
    np.testing.assert_allclose(trained, exchanged, atol=1e-6)
    alone = [model.fuse(tokens[0], None), model.fuse(None, tokens[1])]
    mean = sum(out["logits"]["label"] for out in alone) / 2
    np.testing.assert_allclose(evaluated, mean, atol=1e-6)
    assert jnp.abs(evaluated - exchanged).max() > 1e-7


def test_a_shared_encoder_has_one_set_of_blocks():
    own, shared = (tree.split(make(share_encoder=s))[0] for s in (False, True))
    assert {path for path in own if path not in shared} == {
        path for path in own if path.startswith("audio/blocks/")
    }
    only_audio = tree.split(make(share_encoder=True, modalities="audio"))[0]
    assert "audio/blocks/2/attn/qkv/kernel" in only_audio and "bottleneck" not in only_audio


def test_logits_are_the_mean_of_the_class_tokens_logits(clip):
    model = make()
    out = model.fuse(*model.encode(*clip))
    parts = [out["modality_logits"][name]["label"] for name in ("audio", "video")]
    np.testing.assert_allclose(out["logits"]["label"], (parts[0] + parts[1]) / 2, atol=1e-6)
    np.testing.assert_allclose(model(*clip), out["logits"]["label"], atol=1e-6)


def test_gap_is_the_mean_of_all_tokens(clip):
    model = make(classifier="gap")
    assert model.bottleneck.shape == (1, 2, 8), "no bottleneck token for a class token"
    out = model.fuse(*model.encode(*clip))
    every = jnp.concatenate([out["tokens"]["audio"], out["tokens"]["video"]], 1)
    assert every.shape[1] == 8 + 6 and "modality_logits" not in out
    np.testing.assert_allclose(
        out["logits"]["label"], model.heads["label"](every.mean(1)), atol=1e-6
    )


def test_drop_path_and_recomputed_activations(clip):
    def gradient(remat):
        model = make(remat=remat, drop_path=0.5)
        skeleton = tree.Skeleton(lambda: model)

        @jax.jit
        @jax.grad
        def run(params):
            model, rngs = skeleton.merge(params, {}), nnx.Rngs(dropout=1)
            tokens = model.encode(*clip, train=True, rngs=rngs)
            return model.fuse(*tokens, train=True, rngs=rngs)["logits"]["label"].sum()

        return run(tree.split(model)[0])

    chex.assert_trees_all_close(gradient("blocks"), gradient("none"), atol=1e-5)


def test_bfloat16_is_finite_and_near_float32(clip):
    found = [make(precision=p)(*clip) for p in ("bfloat16", "float32")]
    np.testing.assert_allclose(found[0], found[1], atol=0.05)


def test_from_a_config_block():
    block = dataclasses.asdict(TINY) | {"name": "mbt"}
    assert not abilities(block), "MBT classifies and does nothing else"

    def build(spec=SPEC, **changes):
        return nnx.eval_shape(
            lambda: build_model(
                block | changes, num_classes={"verb": 2, "noun": 4}, input=spec, rngs=nnx.Rngs(0)
            )
        )

    assert set(build().heads) == {"verb", "noun"}
    for changes, words in (
        ({"fusion_layer": 4}, r"fusion_layer is 4; give a layer of 0 to depth \(3\)"),
        ({"fusion": "cross_attention"}, "'cross_attention'; give 'bottleneck' or 'merged'"),
        ({"num_heads": 3}, "num_heads 3 does not divide dim 8"),
        ({"tubelet_frames": 8}, "num_frames is 4; MBT needs 8 or more"),
        ({"patch_px": 64}, "frame_size_px is 32; MBT needs 64 or more"),
        ({"tubelet": 2}, r"config.model.tubelet is not a field \(did you mean 'tubelet_frames'"),
    ):
        with pytest.raises(UserError, match=words):
            build(**changes)
    with pytest.raises(UserError, match="8 spectrogram frames of 32 mel bins; MBT needs 16"):
        build(spec=dataclasses.replace(SPEC, fbank_frames=8))


def test_an_input_of_another_size_is_refused(clip):
    with pytest.raises(ValueError, match="makes 5 tokens, but the model has positions for 9"):
        make().encode(clip[0][:, :2], None)
