"""Whether a config suits its clips: what is found, and that the option it names mends it."""

import re
import shlex

import numpy as np
import pytest
from doctor_shards import clip, good, write

from avt_jax.data.doctor.facts import read_facts
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.experiment.doctor.at_start import warn_at_start
from avt_jax.experiment.doctor.config_checks import PARAMETERS_A_CLIP, config_check

# As the clips of doctor_shards are: half a second, 16 px, 8 frames a second, noise.
FITTING = [
    "--config.data.clip_sec=0.5", "--config.data.num_frames=4", "--config.data.frame_size_px=14",
    "--config.data.audio_mean=-5", "--config.data.audio_std=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write(tmp_path_factory.mktemp("doctor") / "my shards", good())


@pytest.fixture(scope="module")
def facts(shards):
    return read_facts(shards)


@pytest.fixture(autouse=True)
def no_model(monkeypatch, request):
    """Building a model takes seconds: one test does it."""
    if "real_model" not in request.fixturenames:
        skeleton = type("Skeleton", (), {"params": {"head/kernel": np.zeros((2, 2))}})
        monkeypatch.setattr(Experiment, "skeleton", skeleton)


@pytest.fixture
def real_model():
    return None


def check(facts, *words):
    """What is found with the fitting config and changes, by check."""
    words = [f"--config.data.path={facts.path}", *FITTING, *words]
    found = config_check("quickstart", words, facts.path)(facts)
    return {finding.check: finding for finding in found}


def test_a_fitting_config(facts):
    assert check(facts) == {}


@pytest.mark.parametrize(
    ("word", "expected", "severity"),
    [
        ("--config.data.clip_sec=1.0", "clips_shorter", "warning"),
        ("--config.data.audio_mean=-7", "audio_statistics", "warning"),
        ("--config.data.audio_std=4.5", "audio_statistics", "warning"),
        ("--config.data.num_frames=8", "too_few_frames", "warning"),
        ("--config.data.num_frames=1", None, None),
        ("--config.data.frame_size_px=24", "frames_smaller", "hint"),
        ("--config.data.eval_split=vla", "eval_split_missing", "error"),
        ("--config.data.path=generated:10:label=7", "generated_clips", "warning"),
    ],
)
def test_what_does_not_suit(facts, word, expected, severity):
    found = check(facts, word)
    assert set(found) == ({expected} if expected else set())
    if not expected:
        return
    assert found[expected].severity == severity
    words = shlex.split(found[expected].remedy)
    options = [w for w in words if w.startswith("--config.") and "=" in w and w[-1] != "="]
    # What is proposed with its value is quiet when followed.
    if options:
        assert check(facts, word, *options) == {}


def test_frames_larger_than_shown(tmp_path):
    made = {"train": [], "val": []}
    for number in range(8):
        frames = clip(number)["frames"]
        made["val" if number > 5 else "train"].append(clip(number) | {"frames": frames * 5})
    facts = read_facts(write(tmp_path / "shards", made))
    small = check(facts, "--config.data.frame_size_px=8")
    assert small == {}, "twice the size leaves room to crop"
    found = check(facts, "--config.data.clip_sec=2.0", "--config.data.num_frames=3")
    assert set(found) == {"clips_shorter", "too_many_frames"}
    assert " --frame-rate 2 " in f"{found['too_many_frames'].remedy} "


def test_modalities_that_are_not_read_are_not_judged(facts):
    words = ("--config.data.audio_mean=-7", "--config.data.num_frames=8")
    assert set(check(facts, *words, "--config.model.modalities=video")) == {"too_few_frames"}
    assert set(check(facts, *words, "--config.model.modalities=audio")) == {"audio_statistics"}


def test_few_clips_for_a_model(facts, monkeypatch):
    def with_parameters(count, *words):
        params = {"video_encoder/kernel": np.zeros(count), "head/kernel": np.zeros(10)}
        monkeypatch.setattr(Experiment, "skeleton", type("S", (), {"params": params}))
        return check(facts, *words).get("few_clips_for_model")

    assert with_parameters(24 * PARAMETERS_A_CLIP - 10) is None
    finding = with_parameters(24 * PARAMETERS_A_CLIP)
    assert "a rule of thumb asks for 25 from random weights" in finding.what
    assert "own:tiny" not in finding.remedy and "docs/weights.md" in finding.remedy
    given = "--config.init.video=weights"
    assert with_parameters(24 * PARAMETERS_A_CLIP, given) is None
    finding = with_parameters(4_000_000, given)
    assert "random" not in finding.what and "own:tiny" in finding.remedy
    [option] = re.findall(r"\((--config\.optimizer\.frozen=.+,\)')\)", finding.remedy)
    assert with_parameters(4_000_000, given, *shlex.split(option)) is None


def test_the_proposed_frozen_encoders_are_those_of_avt_and_mbt(shards, real_model):
    for recipe in ("quickstart", "mbt_vggsound"):
        option = "--config.optimizer.frozen=('^(video|audio)(_encoder)?/',)"
        config = load_config(recipe, [option])
        experiment = Experiment(config, classes={"label": 2})
        frozen = experiment.parts.optimizer.frozen_paths(experiment.skeleton.params)
        experiment.parts.optimizer.check_paths(experiment.skeleton.params)
        assert frozen and {path.split("/")[0] for path in frozen} in (
            {"video_encoder", "audio_encoder"},
            {"video", "audio"},
        )


def warned(config, capsys):
    experiment = Experiment(config)
    warn_at_start(experiment, experiment.skeleton.params)
    return capsys.readouterr().err.splitlines()


def test_a_training_says_a_few_lines(tmp_path, capsys, shards):
    words = [f"--config.data.path={shards}", *FITTING]
    assert warned(load_config("quickstart", words), capsys) == []
    made = good()
    for split in ("val", "test"):
        made[split].append(clip(500, source=made["train"][0]["source"]))
    made["train"] += [clip(600 + n, 2 + n) for n in range(4)]
    names = ("cat", "dog", "tiger", "tigre", "Tiger", "wolf", "wolv")
    folder = write(tmp_path / "bad", made, names)
    changes = [f"--config.data.path={folder}", *FITTING, "--config.data.clip_sec=2"]
    lines = warned(load_config("quickstart", changes), capsys)
    assert len(lines) == 6
    # The worst come first.
    assert lines[0].startswith("error: 1 file(s) have clips in more than one split")
    assert "(train, val)" in lines[0], "the test split is not opened"
    assert re.fullmatch(rf"\d more; 'avt doctor {folder} --config ...' says what to do", lines[-1])
    assert warned(load_config("quickstart", changes), capsys) == [], "a study trains many times"


def test_nothing_is_said_of_generated_or_own_clips(capsys):
    assert warned(load_config("quickstart:smoke"), capsys) == []
