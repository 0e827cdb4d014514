"""`config.init` with a run of one's own: what fits is taken, all else is listed or refused."""

import dataclasses

import numpy as np
import pytest
from avt_blocks import block
from flax import nnx

import avt_jax
from avt_jax import tree
from avt_jax.conversion.own_run import Trained, encoder_of_run, variables_of_run
from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.start import starting_variables
from avt_jax.models.build import build_model
from avt_jax.models.inputs import InputSpec
from avt_jax.models.mbt import MBTConfig
from avt_jax.models.posemb import adapt_ast_grid, resize_vit_grid

SPEC = InputSpec(num_frames=4, frame_size_px=32, fbank_frames=96, mel_bins=32)
LONGER = dataclasses.replace(SPEC, fbank_frames=192)
CLASSES = {"label": ("cat", "dog", "eel")}
VIT = {"name": "vit", "dim": 8, "depth": 1, "num_heads": 2, "tubelet_frames": 2}


def skeleton(fields, spec=SPEC, classes=CLASSES):
    numbers = {name: len(names) for name, names in classes.items()}
    return tree.Skeleton(
        lambda: build_model(fields, num_classes=numbers, input=spec, rngs=nnx.Rngs(0))
    )


def model(fields=None, spec=SPEC, classes=CLASSES):
    made = skeleton(fields or block(), spec, classes)
    return made.merge(made.params, made.stats)


def trained(fields=None, spec=SPEC, classes=CLASSES):
    """A run: every number is another one."""
    made = skeleton(fields or block(), spec, classes)
    rng = np.random.default_rng(0)
    variables = {
        path: rng.standard_normal(leaf.shape, np.float32)
        for path, leaf in (made.params | made.stats).items()
    }
    return Trained(made.merge(made.params, made.stats), variables, spec, classes)


def start(run, fields=None, spec=SPEC, classes=CLASSES, *, strict=False):
    return variables_of_run(run, model(fields, spec, classes), spec, classes, strict=strict)


def mbt(**changes):
    fields = {"dim": 8, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "fusion_layer": 1}
    return dataclasses.asdict(MBTConfig(**(fields | changes))) | {"name": "mbt"}


@pytest.mark.parametrize("fields", [block(), block(decoders=("audio", "video")), mbt()])
def test_the_same_model_gets_all(fields):
    run = trained(fields)
    found, said = start(run, fields, strict=True)
    assert said == "all weights"
    assert found.keys() == run.variables.keys()
    assert all(
        found[path] is run.variables[path] or (found[path] == run.variables[path]).all()
        for path in found
    )


def test_another_length_of_clips_adapts_positions():
    run = trained()
    found, said = start(run, spec=LONGER, strict=True)
    assert said == "all weights; audio positions adapted from (2, 6) to (2, 12) (frequency, time)"
    old = run.variables["audio_encoder/pos_embed"][0]
    new = np.concatenate([old[:2], adapt_ast_grid(old[2:], (2, 6), (2, 12))])
    np.testing.assert_array_equal(found["audio_encoder/pos_embed"][0], new)
    # And back: those of the middle.
    back, _ = start(
        dataclasses.replace(run, variables=found, spec=LONGER, model=model(spec=LONGER))
    )
    assert back["audio_encoder/pos_embed"].shape == run.variables["audio_encoder/pos_embed"].shape


@pytest.mark.parametrize(
    ("fields", "place"),
    (
        (block(video_encoder=VIT), "video_encoder/embed/pos_embed"),
        (mbt(tubelet_frames=2), "video/embed/pos_embed"),
    ),
)
def test_another_size_and_number_of_frames_adapts_positions(fields, place):
    larger = dataclasses.replace(SPEC, frame_size_px=64)
    run = trained(fields)
    found, said = start(run, fields, larger, strict=True)
    assert "video positions adapted from (2, 2, 2) to (2, 4, 4) (time, rows, columns)" in said
    old, new = run.variables[place][0], found[place][0]
    extra = len(old) - 8  # a class token, or none
    np.testing.assert_array_equal(new[:extra], old[:extra])
    for frame in range(2):
        expected = resize_vit_grid(old[extra + 4 * frame :][:4], (2, 2), (4, 4))
        np.testing.assert_array_equal(new[extra + 16 * frame :][:16], expected)
    # Twice as many frames: a quarter of the way, three quarters; the ends stay.
    more = dataclasses.replace(SPEC, num_frames=8)
    one, two = np.split(old[extra:], 2)
    expected = np.concatenate([one, 0.75 * one + 0.25 * two, 0.25 * one + 0.75 * two, two])
    found, _ = start(run, fields, more, strict=True)
    np.testing.assert_allclose(found[place][0][extra:], expected, rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_stays_random_and_is_listed():
    run = trained(block(decoders=("audio",), num_bottleneck=4))
    fields = block(decoders=("video",), num_bottleneck=2, num_blocks=3, projection_dim=5)
    found, said = start(run, fields)
    assert "new: " in said and "not used: audio_decoder" in said
    for name in ("fusion/bottleneck", "video_embed", "audio_embed", "video_decoder"):
        assert name in said.split("not used")[0], said
    assert "fusion/video_blocks/2" in said and "fusion/video_blocks/1" not in said
    assert "match_head" not in said
    shapes = skeleton(fields)
    for path, value in found.items():
        np.testing.assert_array_equal(value, run.variables[path])
        assert value.shape == (shapes.params | shapes.stats)[path].shape
    with pytest.raises(UserError, match="config.init.strict is True and not all .*audio_decoder"):
        start(run, fields, strict=True)


def test_a_modality_more_or_less():
    both, heard = trained(), trained(block(modalities="audio"))
    found, said = start(both, block(modalities="audio"))
    assert "new head of label" in said
    unused = said.split("not used: ")[1]
    assert all(name in unused for name in ("video_encoder", "match_head", "fusion/video_blocks/1"))
    assert any(path.startswith("audio_encoder/") for path in found)
    found, said = start(heard)
    assert "video_encoder" in said.split("new: ")[1]
    assert not any(path.startswith("video") for path in found)


def test_an_encoder_fits_as_a_whole_or_not_at_all():
    run = trained()
    audio = block()["audio_encoder"] | {"depth": 2}
    found, said = start(run, block(audio_encoder=audio))
    assert "new: audio_encoder" in said and not any(p.startswith("audio_encoder") for p in found)
    with pytest.raises(UserError, match="no part of the run's model fits"):
        other = block(dim=16, audio_encoder=audio | {"dim": 16}, projection_dim=7)
        variables = {k: v for k, v in run.variables.items() if not k.startswith("video_enc")}
        variables = {k: v for k, v in variables.items() if not k.startswith("contrastive")}
        start(dataclasses.replace(run, variables=variables), other)


@pytest.mark.parametrize(
    ("changes", "words"),
    (
        ({"num_heads": 4}, "num_heads 2, not 4.*give --config.model.num_heads=2"),
        (
            {"audio_encoder": block()["audio_encoder"] | {"num_heads": 3}},
            "num_heads 2, not 3.*--config.model.audio_encoder.num_heads=2",
        ),
    ),
)
def test_weights_that_fit_by_their_shapes_alone_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        start(trained(), block(**changes))


def test_another_fusion_is_not_taken_for_this_one():
    found, said = start(trained(), block(fusion="cross_attention"))
    assert not any(path.startswith("fusion/") for path in found) and "new: " in said


def test_heads_go_by_the_names_of_classes():
    run = trained()
    path = "head/layers/joint/label/kernel"
    old = run.variables[path]
    # The same number, in another order.
    found, said = start(run, classes={"label": ("eel", "cat", "dog")}, strict=True)
    np.testing.assert_array_equal(found[path], old[:, [2, 0, 1]])
    assert said == "all weights; head of label: 3 of 3 classes carried over"
    # One is gone, two are new.
    found, said = start(run, classes={"label": ("dog", "ant", "cat", "bee")})
    np.testing.assert_array_equal(found[path][:, [0, 2]], old[:, [1, 0]])
    np.testing.assert_allclose(found[path][:, 1], old[:, :2].mean(1), rtol=1e-6)
    np.testing.assert_array_equal(found[path][:, 1], found[path][:, 3])
    assert "head of label: 2 of 4 classes carried over, the others start as their mean" in said
    # As many, and none of them the same.
    found, said = start(run, classes={"label": ("a", "b", "c")})
    assert path not in found and said == "all weights; new head of label"
    found, said = start(run, classes={"verb": ("cat", "dog", "eel")})
    assert not any("head/layers" in one for one in found) and "new head of verb" in said


def test_one_encoder_of_a_run():
    run = trained()
    found, said = encoder_of_run(run, model(spec=LONGER), "audio", LONGER)
    assert "positions adapted" in said
    assert {path.split("/")[0] for path in found} == {"audio_encoder"}
    with pytest.raises(UserError, match="the run's model has no video encoder"):
        encoder_of_run(trained(block(modalities="audio")), model(), "video", SPEC)
    with pytest.raises(UserError, match="of kind vit, the video encoder takes uniformer"):
        encoder_of_run(trained(block(video_encoder=VIT)), model(), "video", SPEC)


def test_a_run_folder_of_other_clips_and_classes(tmp_path):
    first = tmp_path / "first"
    config = {"data.path": "generated:8:label=4", "train.steps": 1, "model.modalities": "audio"}
    run = avt_jax.train(avt_jax.load_config("quickstart:smoke", config), first).state
    changes = {"data.path": "generated:8:label=5", "data.clip_sec": 2.0}

    def started(**init):
        given = config | changes | {f"init.{name}": str(first) for name in init}
        made = Experiment(avt_jax.load_config("quickstart:smoke", given))
        classes = made.splits.info.label_sets
        found, [said] = starting_variables(made.parts.init, made.skeleton, made.spec, classes)
        assert said.startswith(f"starting from {first}: ") and "positions adapted" in said
        assert {path: np.shape(value) for path, value in found.items()}.items() <= {
            path: leaf.shape for path, leaf in (made.skeleton.params | made.skeleton.stats).items()
        }.items()
        return found, said

    found, said = started(model=True)
    assert "4 of 5 classes carried over" in said
    kept = [p for p, value in run.params.items() if value.shape == found[p].shape]
    assert len(kept) == len(found) - 3  # but for positions, kernel and bias of the head
    for path in kept:
        np.testing.assert_array_equal(found[path], run.params[path], err_msg=path)
    found, said = started(audio=True)
    assert "audio encoder from ast weights (a run)" in said
    assert {path.split("/")[0] for path in found} == {"audio_encoder"}
    with pytest.raises(UserError, match="config.init.video=.*has no video encoder"):
        started(video=True)
