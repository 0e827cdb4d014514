"""Config files and overrides on the command line."""

import json
import shlex
import subprocess
import sys

import pytest

from avt_jax.cli.main import main
from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config, recipes
from avt_jax.experiment.parts import BLOCKS, parse, parse_saved
from avt_jax.losses.objective import TERMS


def test_overrides_keep_their_types():
    config = load_config(
        "quickstart:smoke",
        [
            "--config.optimizer.lr=3e-4",
            "--config.train.steps",
            "7",
            "--config.data.flip=false",
            "--config.data.crop_scale=(0.5,1.0)",
            "--config.losses.weights.contrastive=0",
        ],
    )
    assert config.optimizer.lr == 3e-4 and config.train.steps == 7 and config.data.flip is False
    assert config.data.crop_scale == (0.5, 1.0) and config.losses.weights.contrastive == 0


def test_a_file_of_the_users_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from configs import quickstart\n"
        "def get_config(arg=''):\n"
        "    config = quickstart.get_config(arg)\n"
        "    config.seed = 5\n"
        "    return config\n"
    )
    assert load_config(f"{file}:smoke", []).seed == 5


@pytest.mark.parametrize(
    "spec,overrides,message",
    [
        ("quickstrat", [], "did you mean 'quickstart'"),
        ("quickstart:smok", [], "unknown argument 'smok'"),
        ("quickstart", ["--config.optimizer.learning=1"], "config.optimizer.learning: quickstart"),
        ("quickstart", ["--config.optimzer.lr=1"], "did you mean 'optimizer.lr'"),
        ("quickstart", ["--confg.optimizer.lr=1"], "unexpected argument '--confg.optimizer.lr=1'"),
        ("quickstart", ["--config.seed"], "--config.seed has no value"),
        ("quickstart", ["--config.optimizer.lr=fast"], "fast"),
        ("quickstart", ["stray"], "unexpected argument 'stray'"),
    ],
)
def test_mistakes_are_one_sentence(spec, overrides, message):
    with pytest.raises(UserError, match=message):
        load_config(spec, overrides)


def test_a_config_that_does_not_run(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("def get_config():\n    return 1 / 0\n")
    with pytest.raises(UserError, match="division by zero"):
        load_config(str(file), [])


def test_unknown_field_exits_with_2(tmp_path):
    command = [sys.executable, "-m", "avt_jax.cli.train", "--config", "quickstart"]
    result = subprocess.run(
        [*command, "--workdir", str(tmp_path / "run"), "--config.train.epoch=3"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr == (
        "avt: error: --config.train.epoch: quickstart has no such field (did you mean "
        "'train.epochs'?); 'avt config quickstart --doc' shows all fields.\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", recipes())
def test_a_config_has_every_field_and_is_its_own_resolution(recipe):
    for argument in ("", ":smoke"):
        config = load_config(f"{recipe}{argument}")
        parts = parse(config.to_dict())
        assert parts.to_dict() == config.to_dict()
        assert set(config) == {"seed", "model", *BLOCKS}
        # As it comes back from a run's config.json.
        assert parse_saved(json.loads(json.dumps(config.to_dict()))).to_dict() == config.to_dict()


def test_dicts_and_words_say_the_same():
    words = ["--config.optimizer.lr=3e-4", "--config.train.steps=20", "--config.data.flip=False"]
    nested = {"optimizer.lr": 3e-4, "train": {"steps": 20}, "config.data.flip": False}
    assert load_config("quickstart", words) == load_config("quickstart", nested)


@pytest.mark.parametrize("argument", ["", ":smoke"])
@pytest.mark.parametrize("recipe", [name for name in recipes() if not name.startswith("mbt")])
def test_another_encoder_brings_its_own_fields(recipe, argument):
    config = load_config(
        f"{recipe}{argument}",
        [
            "--config.model.video_encoder.patch_px=32",
            "--config.model.video_encoder.name=vit",
        ],
    )
    encoder = config.model.video_encoder
    assert (encoder.name, encoder.patch_px) == ("vit", 32)
    assert "qkv_bias" not in encoder  # UniFormer's
    experiment = Experiment(config, classes={"label": 3})
    assert any(path.startswith("video_encoder/blocks/0/") for path in experiment.skeleton.params)


def test_another_model_brings_its_own_fields():
    config = load_config("quickstart:smoke", {"model.name": "mbt", "model.depth": 9})
    assert (config.model.name, config.model.depth) == ("mbt", 9)
    assert "video_encoder" not in config.model


def test_the_unit_that_is_given_counts():
    assert load_config("ablation").train.steps == 300
    config = load_config("ablation", ["--config.train.epochs=3"])
    assert (config.train.epochs, config.train.steps) == (3, 0)
    config = load_config("quickstart", {"optimizer.warmup_examples": 64})
    assert (config.optimizer.warmup_examples, config.optimizer.warmup_epochs) == (64, 0)
    config = load_config("kinetics_sounds", {"train.log_every_epochs": 0.5})
    assert config.train.log_every_steps == 0
    with pytest.raises(UserError, match="config.train.steps is 5 and examples 7; give one"):
        load_config("quickstart", {"train.steps": 5, "train.examples": 7})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.fusion": "botleneck"}, r"did you mean 'bottleneck'"),
        ({"model.video_encoder.name": "uniformr"}, r"did you mean 'uniformer'"),
        ({"losses.weights.contrastiv": 1.0}, r"did you mean 'losses.weights.contrastive'"),
        ({"model.name": "avtt"}, r"did you mean 'avt'"),
        ({"masking.strategy": "activities"}, r"did you mean 'activity'"),
        ({"train.steps": 1.5}, r"config.train.steps is 1.5; give a whole number"),
        ({"seed": -1}, r"config.seed is -1"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_one(change, message):
    with pytest.raises(UserError, match=message):
        load_config("quickstart:smoke", change)


def test_every_field_is_described(capsys):
    assert main(["config", "kinetics_sounds", "--doc"]) == 0
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if line.startswith("--config.")]
    assert len(lines) == len(set(lines))
    named = {line.partition("=")[0].removeprefix("--config.") for line in lines}
    assert named == set(_paths(load_config("kinetics_sounds").to_dict()))
    shown = " ".join(shown.split())
    assert shown.count("Allowed: ") == len(lines) - len(TERMS) + 1  # one for all weights
    assert "clips per step, over all devices. Allowed: a whole number from 1" in shown


def test_what_is_printed_is_taken(capsys):
    assert main(["config", "quickstart", "--config.model.video_encoder.name=vit"]) == 0
    words = [word for line in capsys.readouterr().out.splitlines() for word in shlex.split(line)]
    expected = load_config("quickstart", {"model.video_encoder.name": "vit"})
    # On another recipe: everything is said, so nothing of it is left.
    config = load_config("kinetics_sounds", [w for w in words if not w.endswith("=")])
    assert config == expected


def test_the_recipes_are_listed(capsys):
    assert main(["config"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(recipes())
    assert all(len(line.split()) > 3 for line in listed)


def _paths(block, prefix=""):
    for name, value in block.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
