"""`avt tune` from end to end on a tiny model, and the file that it leaves."""

import json
import warnings

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from avt_jax.cli import tune
from avt_jax.cli.common import run
from avt_jax.experiment import tuning
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.models.kernels import choice, forms, kept
from avt_jax.models.kernels.attention import dot_product_attention
from avt_jax.models.kernels.choice import Kernels
from avt_jax.models.kernels.depthwise_conv import depthwise_conv3d

GRADIENT = "depthwise kernel gradient"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AVT_CACHE", str(tmp_path))
    return tmp_path


def test_times_are_printed_and_kept(capsys):
    words = ["--config", "quickstart:smoke", "--batch", "1", "--repeats", "1", "--classes", "y=2"]
    words += ["--config.model.modalities=video", "--config.model.num_blocks=1"]
    assert run(tune.main, [*words, "--config.model.fusion=merged"]) == 0
    shown = capsys.readouterr().out
    assert str(kept.path()) in shown and shown.count("chosen") > 3
    assert all(word in shown for word in ("taps", "rows", "plain", "heads", "median"))
    content = json.loads(kept.path().read_text())
    assert content["device_kind"] == jax.devices()[0].device_kind
    # Of the convolution there is but one form for a CPU.
    assert set(content["forms"]) == {GRADIENT, "attention"}
    # What was kept is what a model is told from now on.
    told = kept.told("auto")
    assert {step for step, _, _ in told.measured} == {GRADIENT, "attention"}
    config = load_config("quickstart:smoke", {"model.modalities": "video"})
    experiment = Experiment(config, classes={"y": 2})
    model = nnx.eval_shape(lambda: experiment.build(jax.random.key(0)))
    found = {module.kernels for _, module in nnx.iter_graph(model) if hasattr(module, "kernels")}
    assert found == {told}


def test_cases_are_found_wherever_they_are_called():
    def attend(x):
        return dot_product_attention(x, x, x)

    def step(x, y, kernel):
        x = jax.lax.fori_loop(0, 3, lambda i, x: jax.remat(attend)(x), x)
        return jax.grad(lambda y, k: depthwise_conv3d(y, k).sum(), (0, 1))(y, kernel), x

    shapes = ((2, 5, 3, 4), (2, 3, 4, 6, 8), (3, 1, 5, 8))
    jaxpr = jax.make_jaxpr(step)(*(jnp.zeros(shape) for shape in shapes)).jaxpr
    found = {(steps[0], str(case)) for steps, case, _ in tuning._cases(jaxpr)}
    conv = "3x4x6x8 3x1x5 float32"
    assert found == {
        ("attention", "5x5 3x4 float32"),
        ("depthwise forward", conv),
        (GRADIENT, conv),
    }


def test_the_rules_form_stays_unless_another_is_clearly_faster():
    assert tuning._best({"rows": [1.0, 9.0, 1.0], "taps": [0.99] * 3}, "rows") == "rows"
    assert tuning._best({"rows": [1.0], "taps": [0.9]}, "rows") == "taps"
    assert tuning._best({"taps": [0.9]}, "rows") == "taps"
    assert tuning._best({}, "rows") is None


def test_a_form_that_fails_is_not_chosen(monkeypatch):
    def fails(x, grad, shape):
        raise NotImplementedError("not here\nand there")

    monkeypatch.setitem(forms.REGISTRIES[GRADIENT], "rows", fails)
    x = jax.ShapeDtypeStruct((1, 2, 2, 2, 3), jnp.float32)
    case = choice.Conv.of(x, (3, 3, 3, 3))
    timed = {one.form: one for one in tuning._time_case((GRADIENT,), case, (x, x), 1)}
    assert timed["rows"].failure == "not here" and not timed["rows"].chosen
    assert timed["taps"].chosen and len(timed["taps"].times_ms) == 1


def written(**changes):
    content = {
        "device_kind": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "forms": {GRADIENT: {"a case": "taps"}},
    }
    kept.path().write_text(json.dumps(content | changes))


def test_a_file_of_this_machine_is_read_for_auto_alone():
    assert kept.told("auto") == Kernels("auto")  # there is none
    written()
    assert kept.told("auto").measured == ((GRADIENT, "a case", "taps"),)
    assert kept.told("cpu") == Kernels("cpu")


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"device_kind": "TPU v9"}, "its device_kind is 'TPU v9', and here it is"),
        ({"jax": "0.1"}, "its jax is '0.1'"),
        ({"forms": {GRADIENT: {"a case": "rowz"}}}, "has the form 'rowz' for 'depthwise kernel"),
        ({"forms": {GRADIENT: {"a case": []}}}, "has the form"),
        ({"forms": {"other": {"a case": "rows"}}}, "has the form 'rows' for 'other'"),
        ({"forms": {GRADIENT: "rows"}}, "not a file of 'avt tune'"),
        ({"forms": []}, "not a file of 'avt tune'"),
        (None, "Expecting value"),
    ],
)
def test_a_foreign_or_damaged_file_is_left_alone_with_one_warning(changes, message):
    kept.path().write_text("nonsense")
    if changes is not None:
        written(**changes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert kept.told("auto") == Kernels("auto")
    (warning,) = caught
    text = str(warning.message)
    assert message in text and "run 'avt tune' again" in text and str(kept.path()) in text


def test_another_model_is_added():
    written()
    kept.write({GRADIENT: {"another": "rows"}})
    assert kept._read() == {GRADIENT: {"a case": "taps", "another": "rows"}}
    kept.path().write_text("nonsense")
    kept.write({GRADIENT: {"another": "rows"}})
    assert kept._read() == {GRADIENT: {"another": "rows"}}
