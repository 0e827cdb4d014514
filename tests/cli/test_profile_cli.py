"""`avt profile` from end to end on tiny models."""

import json

import pytest

from avt_jax.cli import profile
from avt_jax.cli.common import run
from avt_jax.errors import UserError
from avt_jax.experiment.config import load_config
from avt_jax.experiment.cost import profile_config, read_classes

PARTS = ["video encoder", "audio encoder", "fusion", "heads"]


def test_table_and_json(tmp_path, capsys):
    file = tmp_path / "cost.json"
    # Few layers: the training step is compiled for its memory.
    shallow = ["--config.model.depth=2", "--config.model.fusion_layer=1"]
    arguments = ["--config", "mbt_vggsound:smoke", "--batch", "2", "--json", str(file)]
    assert run(profile.main, arguments + shallow) == 0
    found = json.loads(file.read_text())
    assert found["batch_size"] == 2 and found["classes"] == {"label": 309}
    assert list(found["xla_flops"]) == PARTS == list(found["parameters"])
    for part in PARTS:
        assert found["xla_flops"][part] >= found["analytic_flops"][part] > 0
    forward = sum(found["xla_flops"].values())
    assert 2.5 * forward < found["step_flops"] < 4 * forward
    assert 0 < found["forward_bytes"] < found["step_bytes"]
    shown = capsys.readouterr().out
    assert all(part in shown for part in PARTS)
    assert f"{sum(found['parameters'].values()):,}" in shown
    assert "training step" in shown and "MB on cpu" in shown


def test_without_memory_nothing_is_compiled(capsys):
    arguments = ["--config", "vggsound:smoke", "--no-memory", "--config.model.modalities=audio"]
    assert run(profile.main, [*arguments, "--classes", "verb=97,noun=300"]) == 0
    shown = capsys.readouterr()
    assert "verb 97, noun 300" in shown.out and "video encoder" not in shown.out
    assert "memory" not in shown.out and "compiling" not in shown.err


def test_classes():
    said = []
    assert read_classes("verb=97,noun=300", "x", said.append) == {"verb": 97, "noun": 300}
    assert read_classes(None, "generated:3:label=12", said.append) == {"label": 12}
    several = read_classes("label=527+,verb=97", "x", said.append)
    assert several == {"label": 527, "verb": 97} and several.multi_label == ("label",)
    assert read_classes(None, "generated:3:label=12+", said.append).multi_label == ("label",)
    assert not said
    assert read_classes(None, "no/such/folder", said.append) == {"label": 400}
    assert "'no/such/folder'" in said[0] and "label=400" in said[0]


@pytest.mark.parametrize(
    "text", ["", "309", "label=0", "label=+", "label=3++", "label=x", "a=1,,b=2", "a=1;b=2"]
)
def test_classes_that_do_not_read(text):
    with pytest.raises(UserError, match="--classes"):
        read_classes(text, "x", print)


def test_a_label_set_named_twice():
    with pytest.raises(UserError, match="label twice"):
        read_classes("label=3,label=4", "x", print)


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--batch", "0"], "--batch 0"),
        (["--json", "no/such/folder/a.json"], "no such folder"),
        (["--config.model.dims=3"], "config.model.dims"),
        (["--config.model.fusion=summed"], "config.model.fusion is 'summed'"),
        (["--config.losses.weights.classification=0"], "no loss is left"),
    ],
)
def test_mistakes_end_with_2(arguments, message, capsys):
    base = ["--config", "mbt_vggsound:smoke", "--no-memory"]
    assert run(profile.main, base + arguments) == 2
    assert message in capsys.readouterr().err


def test_the_average_of_parameters_costs_a_little():
    plain, averaged = (
        profile_config(
            load_config("mbt_vggsound:smoke", {"optimizer.ema_decay": decay}),
            {"label": 3},
            forward_memory=False,
            training_memory=False,
        ).step_flops
        for decay in (0.0, 0.9)
    )
    assert plain < averaged < 1.1 * plain
