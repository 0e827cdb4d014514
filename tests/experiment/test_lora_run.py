"""Trainings of adapters: what they leave alone, where they go on from, what is merged."""

import json
import shutil

import jax
import numpy as np
import pytest
from small_shards import clip, write
from tiny_run import make_run

import avt_jax
from avt_jax import UserError
from avt_jax.cli.main import main
from avt_jax.conversion.store import read_converted
from avt_jax.data import records
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.cost import profile_config
from avt_jax.experiment.derived.merged import merge_run
from avt_jax.experiment.start import weights_of
from avt_jax.experiment.tokens.cache import cache_tokens
from avt_jax.experiment.tokens.encoders import encoders_of_run
from avt_jax.inference import Predictor
from avt_jax.models.layers.lora import is_adapter
from avt_jax.training import mesh as meshes
from avt_jax.training.checkpoint import load_run

STEPS = 4
LORA = {"model.lora_rank": 4, "model.drop_path": 0.1, "optimizer.lr": 0.03}
LORA |= {"optimizer.ema_decay": 0.9, "optimizer.warmup_epochs": 0.0}
ENCODERS = ("video_encoder/", "audio_encoder/")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips, a run whose weights are the base, and a run with adapters from there."""
    folder = tmp_path_factory.mktemp("lora")
    made = [clip(i, source=f"s{i}", id=f"c{i}") for i in range(12)]
    write(folder / "shards", {"train": made[:8], "val": made[8:]})
    make_run(folder / "base", [f"--config.data.path={folder / 'shards'}"])
    (folder / "said").write_text("\n".join(train(folder, "lora")))
    return folder


def config_of(folder, changes=()):
    fixed = {"data.path": str(folder / "shards"), "init.model": str(folder / "base")}
    fixed |= {"train.steps": STEPS, "train.batch_size": 4, "train.eval_every_steps": 2}
    fixed |= {"train.keep_last": 9, "train.checkpoint_every_steps": 2}
    return avt_jax.load_config("quickstart:smoke", fixed | dict(changes))


def train(folder, name, changes=LORA):
    said = []
    avt_jax.train(config_of(folder, changes), folder / name, say=said.append)
    return said


def batch():
    rng = np.random.default_rng(0)
    video = rng.integers(0, 255, (2, 4, 32, 32, 3), "u1")
    return {"video": video, "audio": rng.standard_normal((2, 100, 128)).astype("f4")}


def predictions(run, **options):
    return Predictor(run, **options).predict_batch(batch())["label"]


@pytest.mark.parametrize("weights", ("raw", "averaged"))
def test_only_adapters_and_what_is_above_the_encoders_moves(folder, weights):
    base, run = load_run(folder / "base"), load_run(folder / "lora", "last", weights=weights)
    assert run.step == STEPS
    moved = set()
    for path, value in {**run.params, **run.stats}.items():
        if is_adapter(path):
            continue
        before = {**base.params, **base.stats}[path]
        if path.startswith(ENCODERS):
            np.testing.assert_array_equal(value, before, err_msg=path)
        elif (value != before).any():
            moved.add(path.split("/")[0])
    assert {"fusion", "head", "video_embed", "audio_embed"} <= moved
    # Statistics are among what was compared.
    assert any(path.startswith("video_encoder/norm/") for path in run.stats)
    for path, value in run.params.items():
        if path.endswith("lora_b"):
            assert value.any(), path
    said = (folder / "said").read_text()
    assert "adapters that start fresh: 6" in said and "warning" not in said
    count = {True: 0, False: 0}
    for path, value in run.params.items():
        count[path.startswith(ENCODERS) and not is_adapter(path)] += value.size
    assert f"M parameters ({count[False] / 1e6:.3g} M trained)" in said


def test_there_are_no_moments_of_what_is_frozen(folder):
    made = Experiment(config_of(folder, LORA))
    moments = {
        leaf[-1].key
        for leaf, _ in jax.tree_util.tree_leaves_with_path(made.birth.shapes.opt_state)
        if isinstance(leaf[-1], jax.tree_util.DictKey)
    }
    assert any(is_adapter(path) for path in moments)
    assert not [p for p in moments if p.startswith(ENCODERS) and not is_adapter(p)]
    more = Experiment(config_of(folder, LORA | {"optimizer.frozen": ("^fusion/",)}))
    frozen = more.parts.optimizer.frozen_paths(more.skeleton.params)
    assert {path.split("/")[0] for path in frozen} == {"fusion", "video_encoder", "audio_encoder"}


def test_stopped_and_continued_equals_never_stopped(folder):
    shutil.copytree(folder / "lora", folder / "resumed")
    shutil.rmtree(folder / "resumed" / "checkpoints" / "4")
    said = train(folder, "resumed")
    assert any("continuing at step 2" in line for line in said)
    for weights in ("raw", "averaged"):
        one, other = (load_run(folder / n, "last", weights=weights) for n in ("lora", "resumed"))
        jax.tree.map(
            np.testing.assert_array_equal, (one.params, one.stats), (other.params, other.stats)
        )
    with pytest.raises(UserError, match="model.lora_rank was 4 and is now 0.*--config.init.model="):
        train(folder, "resumed", LORA | {"model.lora_rank": 0})


def test_a_merged_run_predicts_the_same(folder, capsys):
    words = ["weights", "merge", str(folder / "lora"), "--out", str(folder / "whole")]
    assert main([*words, "--step", "last"]) == 0
    assert "with its 6 adapters merged" in capsys.readouterr().out
    expected = predictions(folder / "lora", step="last")
    np.testing.assert_allclose(predictions(folder / "whole"), expected, atol=1e-5, rtol=1e-5)
    assert np.abs(expected - predictions(folder / "base")).max() > 1e-3
    whole = load_run(folder / "whole")
    assert whole.config["model"]["lora_rank"] == 0 and whole.step == STEPS
    assert not any(map(is_adapter, whole.params))
    # The clips are found from it, too.
    assert json.loads((folder / "whole" / "run.json").read_text())["shards"]
    with pytest.raises(UserError, match="has no adapters"):
        merge_run(folder / "base", folder / "other")
    with pytest.raises(UserError, match="exists"):
        merge_run(folder / "lora", folder / "whole")


def started(folder, changes):
    experiment = Experiment(config_of(folder, changes))
    variables, said = weights_of(experiment)
    return variables, "\n".join(said)


def test_a_run_with_adapters_as_the_source(folder):
    run, source = load_run(folder / "lora"), str(folder / "lora")
    merge_run(source, folder / "merged")
    merged = load_run(folder / "merged")
    given = {"init.model": source, "init.strict": True}
    # None here: merged.
    variables, said = started(folder, given)
    assert "the run's 6 adapters merged into its weights" in said and "all weights" in said
    jax.tree.map(np.testing.assert_array_equal, variables, {**merged.params, **merged.stats})
    # The same: kept.
    variables, said = started(folder, given | LORA)
    assert "with the run's 6 adapters" in said and "fresh" not in said
    jax.tree.map(np.testing.assert_array_equal, variables, {**run.params, **run.stats})
    # Others: merged, and those are new.
    for other in ({"model.lora_rank": 2}, {"model.lora_alpha": 3.0}):
        variables, said = started(folder, given | LORA | other)
        assert "6 adapters merged" in said and "adapters that start fresh: 6" in said
        jax.tree.map(np.testing.assert_array_equal, variables, {**merged.params, **merged.stats})


def test_an_encoder_of_a_run_with_adapters_as_the_source(folder):
    run, source = load_run(folder / "lora"), str(folder / "lora")
    given = {"init.model": "", "init.audio": source}
    path = "audio_encoder/blocks/0/attn/qkv/kernel"
    variables, said = started(folder, given)
    assert "merged into its weights" in said
    assert (variables[path] != run.params[path]).any()
    variables, said = started(folder, given | LORA)
    # UniFormer's have no weights: they are random, and stay so.
    assert "with the run's 2 adapters" in said and "adapters that start fresh: 4" in said
    assert "warning: video_encoder start from random weights" in said
    np.testing.assert_array_equal(variables[path], run.params[path])
    assert "audio_encoder/blocks/0/attn/qkv/lora_b" in variables


def test_tokens_are_those_of_the_adapted_encoders(folder):
    encoders = encoders_of_run(folder / "lora", "last")
    cache_tokens(encoders, str(folder / "shards"), folder / "tokens")
    run = load_run(folder / "lora", "last")
    base = load_run(folder / "base")
    for name in ("video", "audio"):
        stored = read_converted(folder / "tokens" / "encoders" / name).variables
        assert not any(map(is_adapter, stored))
        changed = [p for p in stored if (stored[p] != _of(base, f"{name}_encoder/{p}")).any()]
        assert changed and all("/attn/" in p and p.endswith("kernel") for p in changed)
    said = records.read_tokens_info(folder / "tokens")[1]
    assert said.config["model"]["lora_rank"] == 0
    # Of the run itself, unmerged.
    made = Experiment(config_of(folder, LORA))
    model = made.skeleton.merge(run.params, run.stats)
    stored = records.open_tokens(folder / "tokens", "val")[0]["audio_tokens"][0]
    one = next(made.eval_batches(made.splits.val, made.data, 4))
    fbank = (one["audio"][:1] - made.data.audio_mean) / (2 * made.data.audio_std)
    np.testing.assert_allclose(
        jax.jit(model.audio_encoder.tokens)(fbank)[0], stored, atol=1e-4, rtol=1e-4
    )


def _of(run, path):
    return {**run.params, **run.stats}[path]


def test_a_config_from_before_still_loads(folder, tmp_path):
    shutil.copytree(folder / "base", tmp_path / "old")
    file = tmp_path / "old" / "config.json"
    config = json.loads(file.read_text())
    for name in ("lora_rank", "lora_alpha", "lora_on"):
        del config["model"][name]
    file.write_text(json.dumps(config))
    np.testing.assert_array_equal(predictions(tmp_path / "old"), predictions(folder / "base"))


def test_the_profile_counts_them(folder):
    plain, adapted = (
        profile_config(
            config_of(folder, changes),
            {"label": 3},
            training=False,
            forward_memory=False,
            training_memory=False,
        )
        for changes in ({}, LORA)
    )
    run = load_run(folder / "lora")
    size = sum(value.size for path, value in run.params.items() if is_adapter(path))
    assert sum(adapted.parameters.values()) == sum(plain.parameters.values()) + size
    assert plain.trained_parameters == sum(plain.parameters.values())
    assert adapted.trained_parameters < plain.trained_parameters / 2
    for part in ("video encoder", "audio encoder"):
        assert adapted.analytic_flops[part] > plain.analytic_flops[part]


# Three equal blocks run as a loop; UniFormer's first stages have BatchNorm.
VIDEO = {"name": "uniformer", "variant": "smoke", "depth": (1, 1, 3, 1), "remat": "blocks"}
SMALL = {"dim": 16, "num_heads": 2, "lora_rank": 2, "drop_path": 0.1}
AVT = SMALL | {"modalities": "video", "num_blocks": 1, "decoders": (), "video_encoder": VIDEO}
MBT = SMALL | {"name": "mbt", "modalities": "audio", "depth": 3, "fusion_layer": 1}
ONLY = {"contrastive": 0.0, "matching": 0.0, "masked_audio": 0.0}


def stepped(changes, devices, steps=2):
    """(loss of each step, parameters and statistics before, after)."""
    config = avt_jax.load_config(
        "quickstart:smoke",
        {
            "optimizer.lr": 0.01,
            "optimizer.warmup_epochs": 0.0,
            "train.batch_size": 16,
            "mesh.min_cut_mb": 0.0,
            "mesh.fsdp": min(devices, 2),
            "losses.weights": ONLY,
        }
        | changes,
    )
    made = Experiment(config, devices=jax.devices()[:devices])
    state, places = made.init_state()
    before = jax.device_get({**state.params, **state.stats})
    step = made.packed_step(places, state)
    batches = made.train_batches()
    state, losses = step.pack(state), []
    for _ in range(steps):
        given = meshes.to_device(next(batches), made.mesh)
        state, metrics = step(state, given, jax.random.key(0))
        total, count = metrics["loss"]
        losses.append(float(total) / float(count))
    batches.close()
    state = step.unpack(state)
    return losses, before, jax.device_get({**state.params, **state.stats})


@pytest.mark.parametrize(
    "changes",
    ({"model": AVT}, {"model": MBT}),
    ids=("avt", "mbt"),
)
def test_one_device_and_micro_batches_on_eight(changes):
    one = stepped(changes, 1)
    eight = stepped(changes | {"train.accumulate": 2}, 8)
    np.testing.assert_allclose(one[0], eight[0], rtol=1e-5)
    encoders = (*ENCODERS, "audio/")
    for path, value in one[2].items():
        other = eight[2][path]
        if path.startswith(encoders) and not is_adapter(path):
            np.testing.assert_array_equal(value, one[1][path], err_msg=path)
            np.testing.assert_array_equal(other, eight[1][path], err_msg=path)
        elif is_adapter(path):
            # Adam's first steps are as large as the rate, whatever the gradient's size.
            np.testing.assert_allclose(value, other, atol=2e-3, err_msg=path)
    assert any(path.endswith("lora_b") and value.any() for path, value in one[2].items())
