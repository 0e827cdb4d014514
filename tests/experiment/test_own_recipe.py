import re
import shlex

import numpy as np
import pytest
from small_shards import clip, write

from avt_jax import UserError
from avt_jax.data.shard_tools.sample import sample_split
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.training import run_folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    made = [clip(i, labels={"label": i % 3}) for i in range(25)]
    return write(tmp_path_factory.mktemp("own") / "shards", made)


def test_the_clips_say_how_they_are_read(shards):
    found = sample_split(str(shards))
    assert (found.num_clips, found.length_sec, found.frame_rate_hz) == (25, 0.5, 8.0)
    assert found.label_sets == {"label": 3}
    heard = np.concatenate([clip(i)["fbank"] for i in range(25) if i % 5 != 4]).astype(np.float64)
    assert (found.audio_mean, found.audio_std) == pytest.approx((heard.mean(), heard.std()))

    config = load_config("own", [f"--config.data.path={shards}"])
    assert (config.data.clip_sec, config.data.num_frames) == (0.5, 4)
    assert config.data.audio_mean == pytest.approx(heard.mean(), abs=1e-3)
    # 80,000 clips seen would be 3,200 epochs; the most are 100.
    assert (config.train.epochs, config.train.batch_size) == (100.0, 16)
    # What a user says counts, and the same shards give the same config.
    words = [f"--config.data.path={shards}", "--config.data.num_frames=2"]
    assert load_config("own", words).data.num_frames == 2
    assert load_config("own", {"data.path": str(shards)}).to_dict() == config.to_dict()


def test_sizes(shards):
    path = [f"--config.data.path={shards}"]
    tiny, base = (load_config(f"own:{size}", path) for size in ("tiny", "base"))
    assert tiny.model.video_encoder.dim[0] == 16 and tiny.data.frame_size_px == 64
    assert base.model.video_encoder.variant == "B" and base.data.frame_size_px == 224
    with pytest.raises(UserError, match="own takes none, 'tiny', 'small', 'base' or 'tokens'"):
        load_config("own:huge", path)


def test_without_shards_it_can_be_read(tmp_path):
    assert load_config("own").data.clip_sec == 4.0
    with pytest.raises(UserError, match="no shard folder|not a shard folder|dataset_info"):
        load_config("own", {"data.path": str(tmp_path)})


def test_damaged_and_silent_clips(tmp_path):
    mute = [clip(i, fbank=np.zeros((0, 128), np.float16), has_audio=False) for i in range(6)]
    mute[2]["frames"] = [b"no picture"] * 4
    found = sample_split(str(write(tmp_path / "shards", mute)))
    assert found.audio_mean is None and found.num_clips == 6
    config = load_config("own", {"data.path": str(tmp_path / "shards")})
    assert config.data.audio_mean == pytest.approx(-4.2677, abs=1e-3)


def given(shards, *words, size="tiny"):
    path = f"--config.data.path={shards}"
    return load_config(f"own:{size}", [path, "--config.data.eval_split=train", *words])


def test_given_weights_are_held_and_then_trained_slowly(shards):
    plain = given(shards)
    assert plain.optimizer.held == () and plain.optimizer.layer_decay == 1.0
    assert not plain.model.video_encoder.freeze_bn
    both = "--config.init.video=uniformer-s-k400 --config.init.audio=ast-audioset-16".split()
    for words in (both, ["--config.init.model=runs/mine"]):
        config = given(shards, *words)
        assert config.optimizer.held_epochs == 20.0 == 0.2 * config.train.epochs
        assert config.optimizer.layer_decay == 0.75 and config.model.video_encoder.freeze_bn
        hold = Experiment(config).hold
        held = {path for path, share in hold.held.items() if share}
        assert held == {path for path in hold.held if re.match("(video|audio)_encoder/", path)}
        assert hold.steps == 20  # of 100: one step of 16 clips is an epoch of 20


def test_an_encoder_without_weights_is_not_held(shards):
    config = given(shards, "--config.init.audio=ast-audioset-16")
    held = {path for path, share in Experiment(config).hold.held.items() if share}
    assert held and all(path.startswith("audio_encoder/") for path in held)
    rates = Experiment(config).parts.optimizer.rate_factors(Experiment(config).skeleton.params)
    assert all(rate == (0.1 if path in held else 1.0) for path, rate in rates.items())
    assert not config.model.video_encoder.freeze_bn


@pytest.mark.parametrize(
    "words",
    [
        ["--config.model.name=mbt"],
        ["--config.model.modalities=video"],
        ["--config.model.video_encoder.name=vit", "--config.model.video_encoder.variant=tiny"],
        ["--config.optimizer.held_steps=3"],
        ["--config.optimizer.held=()"],
    ],
)
def test_what_the_recipe_holds_can_be_changed(shards, words):
    made = Experiment(given(shards, "--config.init.model=runs/mine", *words))
    assert made.optimizer
    if words[0].endswith("=()"):
        assert made.hold is None and made.parts.optimizer.held_epochs == 0
    else:
        assert made.hold.steps == (3 if "held_steps" in words[0] else 20)
        assert {0.0, 1.0} == set(made.hold.held.values())


def test_other_arguments_of_the_recipe(shards):
    smoke = load_config("own:smoke", ["--config.init.model=runs/mine"])
    assert Experiment(smoke).hold.steps == 1
    # A length alone is not meant.
    with pytest.raises(UserError, match="held_epochs is 2 and held is empty"):
        given(shards, "--config.optimizer.held=()", "--config.optimizer.held_epochs=2")


def test_a_run_goes_on_with_what_its_refusal_advises(shards, tmp_path):
    before = given(shards, "--config.init.model=runs/mine").to_dict()
    now = given(shards).to_dict()
    info = Experiment(given(shards)).splits.info
    with pytest.raises(UserError, match="freeze_bn was True") as caught:
        run_folder.check_continuation(tmp_path, before, now, info, lambda: False)
    options = shlex.split(re.search(r"or give (.*) to continue", str(caught.value))[1])
    config = given(shards, *options).to_dict()
    run_folder.check_continuation(tmp_path, before, config, info, lambda: False)
