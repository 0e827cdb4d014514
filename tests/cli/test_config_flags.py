"""Config files and overrides on the command line."""

import dataclasses
import subprocess
import sys

import pytest

from avt_jax.cli import wiring
from avt_jax.cli.config import load_config
from avt_jax.errors import UserError


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
        ("quickstart", ["--config.optimzer.lr=1"], "did you mean 'config.optimizer.lr'"),
        ("quickstart", ["--confg.optimizer.lr=1"], "did you mean 'config.optimizer.lr'"),
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
        "'config.train.epochs'?); configs/common.py shows all fields.\n"
    )
    assert not (tmp_path / "run").exists()


def test_the_blocks_show_every_field_with_its_default():
    config = load_config("kinetics_sounds", [])
    for name, block_class in wiring.BLOCKS.items():
        fields = {field.name: field.default for field in dataclasses.fields(block_class)}
        assert set(config[name]) == set(fields), name
        for field, default in fields.items():
            if default is not dataclasses.MISSING and name in ("masking", "activity"):
                assert config[name][field] == default, f"{name}.{field}"
