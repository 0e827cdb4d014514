"""Training on cached tokens is training the rest of the model with its encoders frozen."""

import json
import shutil

import jax
import numpy as np
import pytest
from small_shards import clip, write
from tiny_run import make_run

import avt_jax
from avt_jax import UserError
from avt_jax.conversion.store import read_converted
from avt_jax.data import records
from avt_jax.experiment.evaluate import evaluate_run
from avt_jax.experiment.tokens.cache import cache_tokens
from avt_jax.experiment.tokens.encoders import encoders_of_recipe, encoders_of_run
from avt_jax.experiment.tokens.whole import join_run
from avt_jax.inference import Predictor
from avt_jax.training.checkpoint import load_run

STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips, a run on them, its tokens, and a run on these."""
    folder = tmp_path_factory.mktemp("cached")
    made = [clip(i, source=f"s{i}", id=f"c{i}") for i in range(24)]
    write(folder / "shards", {"train": made[:14], "val": made[14:]})
    make_run(folder / "run", [f"--config.data.path={folder / 'shards'}"])
    cache_tokens(
        encoders_of_run(folder / "run"), str(folder / "shards"), folder / "tokens", views=2
    )
    on_tokens(folder, "rest", {"init.model": str(folder / "run")})
    return folder


def train(recipe, workdir, changes):
    return avt_jax.train(avt_jax.load_config(recipe, changes), workdir)


def on_tokens(folder, name, changes=()):
    fixed = {"data.path": str(folder / "tokens"), "train.steps": STEPS, "train.batch_size": 4}
    fixed |= {"train.eval_every_steps": 2, "train.keep_last": 9, "train.checkpoint_every_steps": 2}
    weights = {"contrastive": 0.02, "matching": 0.1}  # every loss without a decoder
    fixed |= {f"losses.weights.{key}": value for key, value in weights.items()}
    return train("own:tokens", folder / name, fixed | dict(changes))


def test_the_folder_says_what_it_holds(folder):
    info, tokens = records.read_tokens_info(folder / "tokens")
    assert info.splits == {"train": 14, "val": 10} and tokens.dtype == "float32"
    # 4 frames of 32 px, 1 s of sound: see the tiny variants.
    assert set(tokens.shapes) == {"video", "audio"} and tokens.views == 2
    train, val = (records.open_tokens(folder / "tokens", name) for name in ("train", "val"))
    assert len(train[3]["video_tokens"]) == 3 and len(val[0]["audio_tokens"]) == 1
    assert train[3]["id"] == "c3" and val[0]["labels"] == {"label": 14 % 3}
    first, second = train[3]["video_tokens"][:2]
    assert np.abs(first - second).max() > 1e-3
    run = load_run(folder / "run")
    stored = read_converted(folder / "tokens" / "encoders" / "audio").variables
    for path, value in stored.items():
        np.testing.assert_array_equal(value, run.params[f"audio_encoder/{path}"])


def test_the_rest_and_the_frozen_encoders_give_the_same(folder):
    join_run(folder / "rest", folder / "whole", step="last")
    found = {}
    for name, step in (("rest", "last"), ("whole", "best")):
        result = evaluate_run(folder / name, split="val", step=step, write=False)
        found[name] = result.results["label"]
    assert found["rest"]["count"] == found["whole"]["count"] == 10
    for key in ("top1", "loss", "mean_class_accuracy"):
        assert found["rest"][key] == pytest.approx(found["whole"][key], abs=1e-4), key
    # And what was logged while it was trained.
    lines = [json.loads(line) for line in (folder / "rest" / "metrics.jsonl").open()]
    logged = [line for line in lines if line["split"] == "val"][-1]
    assert logged["loss/label"] == pytest.approx(found["whole"]["loss"], abs=2e-4)
    rest, whole, run = (load_run(folder / n, "last") for n in ("rest", "whole", "run"))
    assert set(rest.params) < set(whole.params)
    for path, value in whole.params.items():
        expected = rest if path in rest.params else run
        np.testing.assert_array_equal(value, expected.params[path], err_msg=path)
    moved = [path for path in rest.params if (rest.params[path] != run.params[path]).any()]
    assert any(p.startswith("fusion") for p in moved) and any("match" in p for p in moved)
    # It reads clips, and a training can start from it.
    batch = {"video": np.zeros((1, 4, 32, 32, 3), "u1"), "audio": np.zeros((1, 100, 128), "f4")}
    assert Predictor(folder / "whole").predict_batch(batch)["label"].shape == (1, 3)


def test_stopped_and_continued_equals_never_stopped(folder):
    straight = on_tokens(folder, "straight", {"model.drop_path": 0.2})
    # As if it had been killed after step 3.
    shutil.copytree(folder / "straight", folder / "resumed")
    for step in (4, 6):
        shutil.rmtree(folder / "resumed" / "checkpoints" / str(step))
    resumed = on_tokens(folder, "resumed", {"model.drop_path": 0.2})
    assert int(resumed.state.step) == STEPS
    for one, other in zip(
        jax.tree.leaves((straight.state.params, straight.state.opt_state)),
        jax.tree.leaves((resumed.state.params, resumed.state.opt_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_weights_of_a_recipe(folder):
    encoders = folder / "tokens" / "encoders"
    recipe, shards = "quickstart:smoke", str(folder / "shards")
    given = {name: str(encoders / name) for name in ("video", "audio")}
    found, said = encoders_of_recipe(recipe, shards, [], given)
    assert len(said) == 2
    cached = cache_tokens(found, shards, folder / "again")
    assert cached.clips == 24
    one, other = (records.open_tokens(folder / n, "val") for n in ("tokens", "again"))
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left["video_tokens"], right["video_tokens"], atol=1e-6)
    with pytest.raises(UserError, match="no weights for the audio encoder.*--init.audio"):
        encoders_of_recipe(recipe, shards, [], {"video": given["video"]})
    words = ["--config.model.modalities=video", "--config.model.precision=bfloat16"]
    half = encoders_of_recipe(recipe, shards, words, {"video": given["video"]})[0]
    about = cache_tokens(half, shards, folder / "half").tokens
    assert about.dtype == "float16" and set(about.shapes) == {"video"}
    changes = {"data.path": str(folder / "half"), "train.steps": 1}
    assert train("own:tokens", folder / "half_run", changes).best_score is not None


def test_what_is_refused(folder, tmp_path):
    shards, tokens = str(folder / "shards"), str(folder / "tokens")
    with pytest.raises(UserError, match="holds clips, no cached tokens"):
        avt_jax.load_config("own:tokens", {"data.path": shards})
    with pytest.raises(UserError, match="holds cached tokens, no clips"):
        avt_jax.load_config("own:tiny", {"data.path": tokens})
    with pytest.raises(UserError, match="holds clips, no cached tokens.*--join"):
        evaluate_run(folder / "rest", data=shards, split="val", write=False)
    with pytest.raises(UserError, match="trained on cached tokens.*avt tokens --join"):
        Predictor(folder / "rest")
    with pytest.raises(UserError, match="reads cached tokens itself"):
        encoders_of_run(folder / "rest")
    with pytest.raises(UserError, match="was trained on clips, and has its encoders"):
        join_run(folder / "run", tmp_path / "x")
    changes = {"data.path": tokens, "data.audio_tokens": (7, 64)}
    with pytest.raises(UserError, match="audio tokens of the shape .* is \\(7, 64\\)"):
        train("own:tokens", tmp_path / "y", changes)
    with pytest.raises(UserError, match="there is one view"):
        evaluate_run(folder / "rest", split="val", clips=2, write=False)
    changes = {"data.path": tokens, "mixing.cutmix_alpha": 1.0}
    with pytest.raises(UserError, match="no picture to cut a box from"):
        train("own:tokens", tmp_path / "z", changes)


def test_encoders_that_were_exchanged_are_refused(folder, tmp_path):
    shutil.copytree(folder / "tokens", tmp_path / "tokens")
    encoder = tmp_path / "tokens" / "encoders" / "video"
    file = tmp_path / "tokens" / "metadata.json"
    said = json.loads(file.read_text())
    said["tokens"]["encoders"]["video"] = "0" * 64
    file.write_text(json.dumps(said))
    with pytest.raises(UserError, match="other weights than those"):
        join_run(folder / "rest", tmp_path / "out", tokens=str(tmp_path / "tokens"))
    shutil.rmtree(encoder)
    with pytest.raises(UserError, match="no converted weights"):
        join_run(folder / "rest", tmp_path / "out", tokens=str(tmp_path / "tokens"))
    assert not (tmp_path / "out").exists()
