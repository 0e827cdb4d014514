"""What profile, compile and tune trace is the step that a multi-label set is trained with."""

import jax
import pytest

from avt_jax import axes
from avt_jax.experiment import tuning
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.experiment.cost import Classes, compile, profile, profile_config, step_arguments
from avt_jax.profiling import ahead_of_time

SHALLOW = {"model.depth": 2, "model.fusion_layer": 1}


def has_sigmoid_loss(jaxpr):
    """Whether a program computes log(sigmoid), which the softmax loss does not."""
    return "log_sigmoid" in str(jaxpr) or "softplus" in str(jaxpr)


def smoke():
    return load_config("mbt_audioset:smoke", SHALLOW)


@pytest.fixture
def traced(monkeypatch):
    """The batches whose shapes are asked for, and the steps that they go to."""
    found = []

    def noted(experiment, batch_size):
        arguments = step_arguments(experiment, batch_size)
        found.append((experiment, arguments))
        return arguments

    for module in (profile, compile, tuning):
        monkeypatch.setattr(module, "step_arguments", noted)
    return found


def check(traced, count):
    (experiment, arguments) = traced[0]
    labels = arguments[1][axes.LABELS]["label"]
    assert labels.shape == (2, 7)[:count] and experiment.classes == {"label": 7}
    jaxpr = jax.make_jaxpr(experiment.step)(*arguments)
    metrics = jax.eval_shape(experiment.step, *arguments)[1]
    assert has_sigmoid_loss(jaxpr) == (count == 2)
    assert ("hit1/label" in metrics) == (count == 2) == ("top1/label" not in metrics)


@pytest.mark.parametrize("several", [("label",), ()])
def test_profile(traced, several):
    given = Classes({"label": 7}, several)
    profile_config(
        smoke(), given, batch_size=2, training=False, forward_memory=False, training_memory=False
    )
    check(traced, 1 + len(several))


def test_the_kind_of_the_shards_is_taken():
    config = load_config("mbt_audioset:smoke", SHALLOW | {"data.path": "generated:4:label=7+"})
    opened = Experiment(config)
    classes = profile.read_classes(None, "generated:4:label=7+")
    assert classes == opened.classes and classes.multi_label == opened.multi_label == ("label",)


def test_tune(traced, monkeypatch, tmp_path):
    monkeypatch.setenv("AVT_CACHE", str(tmp_path))
    monkeypatch.setattr(tuning, "_time_case", lambda *case: [])
    tuning.tune_config(smoke(), Classes({"label": 7}, ["label"]), batch_size=2)
    check(traced, 2)


def test_compile(traced, monkeypatch):
    monkeypatch.setattr(ahead_of_time, "devices", lambda topology: jax.devices()[:1])
    steps = compile.StepCompiler(smoke(), "v5e:2x2", classes=Classes({"label": 7}, ["label"]))
    assert steps.experiment.multi_label == ("label",)
    labels = steps.arguments(2)[1][axes.LABELS]["label"]
    assert labels.shape == (2, 7)
