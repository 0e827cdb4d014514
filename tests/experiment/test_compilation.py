"""After the first step of a training nothing is compiled any more."""

import board
import jax
import pytest

import avt_jax
from avt_jax.experiment import run_training
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.reconstructions import has_pictures
from avt_jax.training.writer import METRICS_FILE

COMPILED = "/jax/core/compile/backend_compile_duration"


def _probe(x):
    return x + 1


@pytest.fixture
def programs(monkeypatch):
    """Names of what is compiled after a training's first step, `_probe` the last of each."""
    found = []
    begun = [False]

    def listen(event, duration, **about):
        if event == COMPILED and begun[0]:
            found.append(about.get("fun_name", "a program"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    fit = run_training.fit

    def watched(state, step, *args, **kwargs):
        def one(*arguments):
            made = step(*arguments)
            begun[0] = True
            return made

        begun[0] = False
        try:
            made = fit(state, one, *args, **kwargs)
            jax.jit(_probe)(1.0)
            return made
        finally:
            begun[0] = False

    monkeypatch.setattr(run_training, "fit", watched)
    # What another test has compiled would hide something.
    jax.clear_caches()
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def train(folder, steps, **more):
    changes = {
        "train.steps": steps,
        "train.eval_every_steps": 2,
        "train.log_every_steps": 1,
        **more,
    }
    return avt_jax.train(avt_jax.load_config("quickstart:smoke", changes), folder)


def test_logging_evaluating_saving_and_resuming_compile_nothing(tmp_path, programs):
    more = {"optimizer.ema_decay": 0.9, "train.checkpoint_every_steps": 1}
    train(tmp_path / "run", 3, **more)
    train(tmp_path / "run", 5, **more)
    lines = (tmp_path / "run" / METRICS_FILE).read_text().splitlines()
    assert sum('"split": "val"' in line for line in lines) == 4
    # The second time the probe is there already.
    assert len(programs) == 1 and "_probe" in programs[0], programs


RECONSTRUCTS = {"model.decoders": ("audio",), "losses.weights.masked_audio": 1.0}


def test_what_is_reconstructed_is_drawn_without_compiling(tmp_path, programs):
    train(tmp_path / "run", 3, **RECONSTRUCTS)
    assert len(programs) <= 1, programs
    found = board.images(tmp_path / "run")
    activities = {tag for _, tag in found if tag.startswith("val/activities_")}
    assert 1 <= len(activities) <= 4
    assert {tag for step, tag in found if step == 2} == {"val/reconstruction_audio"} | activities
    assert {tag for step, tag in found if step == 3} == {"val/reconstruction_audio"}, "sounds once"


@pytest.mark.parametrize(
    "changes",
    [RECONSTRUCTS | {"train.log_images": False}, {"model.decoders": ("audio", "video")}],
    ids=["not wanted", "not trained"],
)
def test_nothing_else_is_drawn(changes):
    experiment = Experiment(avt_jax.load_config("quickstart:smoke", changes))
    assert not has_pictures(experiment)
    assert has_pictures(Experiment(avt_jax.load_config("quickstart:smoke", RECONSTRUCTS)))
