"""Vectors of files and shards: which they are, and that an index is whole, right or refused."""

import dataclasses
import json
import zipfile

import jax
import numpy as np
import pyarrow
import pytest
from clip_records import noise_record
from media_files import write_sound
from pyarrow import parquet
from tiny_run import make_run, tiny_run_fixture, write_video  # noqa: F401

from avt_jax import axes
from avt_jax.data.records.writer import RecordWriter
from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.inference import Predictor
from avt_jax.inference.embeddings import shards
from avt_jax.inference.embeddings.reader import read_index
from avt_jax.inference.embeddings.vectors import (
    About,
    Rows,
    about_run,
    rows_of,
    weights_checksum,
)
from avt_jax.inference.embeddings.writer import new_index
from avt_jax.models.forward import Forward, make_embed
from avt_jax.training.inputs import normalisation

ABOUT = About("runs/x", 7, "ab" * 32, "projected", True, ("label", "id"))


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return Predictor(tiny_run, batch_size=2)


def unit(vector_nd):
    vector_nd = np.asarray(vector_nd, np.float64)
    return vector_nd / np.linalg.norm(vector_nd, axis=-1, keepdims=True)


def batch_of(predictor, clips, seed=0):
    rng = np.random.default_rng(seed)
    data = predictor.model.data
    side = data.frame_size_px
    video = rng.integers(0, 255, (clips, data.num_frames, side, side, 3)).astype(np.uint8)
    audio = rng.normal(-5, 3, (clips, data.fbank_frames, 128)).astype(np.float32)
    return {axes.VIDEO: video, axes.AUDIO: audio, axes.HAS_AUDIO: np.ones(clips, bool)}


def test_video_and_audio_are_what_the_contrastive_term_compares(predictor):
    batch = batch_of(predictor, 2)
    found = predictor.embed_batch(batch)
    model = predictor.model
    module = model._skeleton.merge(model.run.params, model.run.stats)
    forward = Forward(module, batch, normalisation(model.data), train=False)
    for name, want in zip(("video", "audio"), forward.embeddings, strict=True):
        np.testing.assert_allclose(found[name], want, atol=1e-5)
    pooled = [unit(forward.outputs["pooled"][name]) for name in ("video", "audio")]
    np.testing.assert_allclose(found["fused"], unit(np.concatenate(pooled, -1)), atol=1e-5)
    for vector_bd in found.values():
        np.testing.assert_allclose(np.linalg.norm(vector_bd, axis=1), 1, atol=1e-6)
    assert model.projects


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["--config.model.modalities=audio"], {"audio"}),
        (["--config.model.modalities=video"], {"video"}),
    ],
)
def test_models_without_projections_give_what_the_classifier_sees(tmp_path, overrides, names):
    predictor = Predictor(make_run(tmp_path / "run", overrides), batch_size=2)
    batch = batch_of(predictor, 2)
    found = predictor.embed_batch(batch)
    assert found.keys() == names and not predictor.model.projects
    module = predictor.model._skeleton.merge(predictor.run.params, predictor.run.stats)
    forward = Forward(module, batch, normalisation(predictor.model.data), train=False)
    for name in names:
        pooled = jax.device_get(forward.outputs["pooled"][name])
        np.testing.assert_allclose(found[name], unit(pooled), atol=1e-5)


def test_mbt_gives_its_class_tokens():
    experiment = Experiment(load_config("mbt_kinetics_sounds:smoke"))
    rng = np.random.default_rng(0)
    params, stats = (
        {path: rng.normal(0, 0.1, leaf.shape).astype("float32") for path, leaf in group.items()}
        for group in (experiment.skeleton.params, experiment.skeleton.stats)
    )
    data = experiment.parts.data
    side = data.frame_size_px
    batch = {
        axes.VIDEO: rng.integers(0, 255, (2, data.num_frames, side, side, 3)).astype(np.uint8),
        axes.AUDIO: rng.normal(-5, 3, (2, data.fbank_frames, 128)).astype(np.float32),
    }
    found = make_embed(experiment.skeleton, normalisation(data))(params, stats, batch)
    model = experiment.skeleton.merge(params, stats)
    assert not model.projects
    pooled = Forward(model, batch, normalisation(data), train=False).outputs["pooled"]
    for name in ("video", "audio"):
        np.testing.assert_allclose(found[name], unit(pooled[name]), atol=1e-5)
    assert found["fused"].shape[1] == 2 * found["video"].shape[1]


def test_files_are_embedded_window_by_window(predictor, tmp_path):
    video = write_video(tmp_path / "a.mp4", video_sec=3, audio_sec=3)
    mute = write_video(tmp_path / "mute.mp4", video_sec=1)
    sound = write_sound(tmp_path / "b.wav", seconds=2.0)
    alone = predictor.embed(video)
    assert alone.start_sec_w.tolist() == [0, 1, 2] and alone.has_video
    found = dict(predictor.embed_files([video, tmp_path / "none.mp4", mute, sound]))
    assert isinstance(found[str(tmp_path / "none.mp4")], UserError)
    assert str(found[str(tmp_path / "none.mp4")]).endswith("it was not embedded.")
    for name, vector_wd in alone.vectors.items():
        np.testing.assert_array_equal(found[str(video)].vectors[name], vector_wd)
    # What a file does not have is zeros in an index.
    rows = rows_of(found[str(mute)])
    assert not rows.has_audio.any() and not rows.vectors["audio"].any()
    assert rows.vectors["video"].any() and rows.vectors["fused"].any()
    rows = rows_of(found[str(sound)])
    assert len(rows) == 2 and not rows.has_video.any() and not rows.vectors["video"].any()
    with pytest.raises(UserError, match="not valid Unicode; rename the file"):
        rows_of(dataclasses.replace(alone, path="a\udcff.mp4"))


def write_shards(folder, predictor, splits):
    folder.mkdir()
    names = predictor.label_sets["label"]
    writer = RecordWriter(folder, label_sets={"label": names}, frame_rate_hz=8.0, short_side_px=24)
    number = 0
    for split, count in splits.items():
        for _ in range(count):
            has_audio = number % 3 != 2
            record = noise_record(number, num_frames=8, duration_sec=1.0, has_audio=has_audio)
            writer.add(split, record | {"labels": {"label": number % 4}})
            number += 1
    writer.close()
    return folder


def test_clips_of_shards_have_their_labels(predictor, tmp_path):
    folder = write_shards(tmp_path / "shards", predictor, {"train": 5, "test": 2})
    assert shards.is_shards(str(folder)) and not shards.is_shards(str(tmp_path))
    parts = list(shards.embed_shards(predictor.model, str(folder), ["train", "test"], 2))
    assert [len(part) for part in parts] == [2, 2, 1, 2]
    classes = predictor.label_sets["label"]
    places = [(part, row) for part in parts for row in range(len(part))]
    for number, (part, row) in enumerate(places):
        record = noise_record(number, num_frames=8, duration_sec=1.0)
        assert part.text["id"][row] == record["id"]
        assert part.text["source"][row] == record["source"]
        assert part.text["split"][row] == ("train" if number < 5 else "test")
        assert part.labels["label"][row] == classes[number % 4]
        assert part.has_audio[row] == (number % 3 != 2) == part.vectors["audio"][row].any()
    with pytest.raises(UserError, match="no split 'tset'.*did you mean 'test'"):
        from avt_jax.data import records

        shards.splits_of(records.read_info(folder), ["tset"], str(folder))


def made_rows(count, seed=0, *, start=0):
    rng = np.random.default_rng(seed)
    has_audio = np.arange(start, start + count) % 3 != 2
    vectors = {
        name: unit(rng.normal(size=(count, width))).astype(np.float32)
        for name, width in (("video", 4), ("audio", 4), ("fused", 6))
    }
    vectors["audio"][~has_audio] = 0
    ids = [f"=clip {i}, ä" for i in range(start, start + count)]
    return Rows(
        {"id": ids, "source": ["s"] * count, "split": ["train"] * count},
        np.arange(count, dtype=float),
        np.arange(count) + 0.5,
        np.ones(count, bool),
        has_audio,
        {"label": ["dog"] * count, "id": ["x"] * count},
        vectors,
    )


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_an_index_is_read_as_it_was_written(tmp_path, suffix):
    path = tmp_path / f"index{suffix}"
    parts = [made_rows(5), made_rows(4096, 1, start=5), made_rows(2, 2, start=4101)]
    with new_index(path, ABOUT) as writer:
        for part in parts:
            assert not path.exists()
            writer.add(part)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and writer.count == 4103
    index = read_index(path)
    assert index.about == ABOUT and len(index.rows) == 4103
    assert index.rows.labels == {"label": ["dog"] * 4103, "id": ["x"] * 4103}
    assert index.rows.text["id"] == [f"=clip {i}, ä" for i in range(4103)]
    for name in ("video", "audio", "fused"):
        want = np.concatenate([part.vectors[name] for part in parts])
        np.testing.assert_array_equal(index.rows.vectors[name], want)
        assert index.rows.vectors[name].dtype == np.float32
    np.testing.assert_array_equal(
        index.rows.has_audio, np.concatenate([part.has_audio for part in parts])
    )
    np.testing.assert_array_equal(
        index.rows.end_sec, np.concatenate([part.end_sec for part in parts])
    )


def test_users_read_an_index_with_numpy_or_pyarrow_alone(tmp_path):
    for suffix in (".parquet", ".npz"):
        with new_index(tmp_path / f"index{suffix}", ABOUT) as writer:
            writer.add(made_rows(3))
    arrays = np.load(tmp_path / "index.npz")
    assert arrays["id"].tolist()[0] == "=clip 0, ä" and arrays["video"].shape == (3, 4)
    assert arrays["label"].tolist() == ["dog"] * 3 and arrays["label_id"].tolist() == ["x"] * 3
    table = parquet.read_table(tmp_path / "index.parquet")
    assert table["fused"].to_pylist() == arrays["fused"].tolist()


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_nothing_is_left_of_what_was_not_finished(tmp_path, suffix):
    path = tmp_path / f"index{suffix}"
    with pytest.raises(KeyboardInterrupt), new_index(path, ABOUT) as writer:
        writer.add(made_rows(5000))
        raise KeyboardInterrupt
    with pytest.raises(UserError, match="nothing was embedded"), new_index(path, ABOUT):
        pass
    assert not list(tmp_path.iterdir())
    path.write_text("mine")
    with pytest.raises(UserError, match="exists; delete it"), new_index(path, ABOUT):
        pass
    with (
        pytest.raises(UserError, match=r"ends in \.parquet or \.npz"),
        new_index(tmp_path / "index.csv", ABOUT),
    ):
        pass


def npz_with(path, **changes):
    with new_index(path, ABOUT) as writer:
        writer.add(made_rows(3))
    arrays = dict(np.load(path)) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": np.full((3, 4), np.nan, np.float32)}, "video is not of length 1"),
        ({"video": np.ones((3, 4), np.float32)}, "video is not of length 1"),
        ({"video": np.ones((2, 4), np.float32)}, "video has 2 entries, id has 3"),
        ({"video": np.ones((3, 4))}, "video is no array"),
        ({"video": np.ones(3, np.float32)}, "video is no array"),
        ({"split": None}, "the column split is missing"),
        ({"has_audio": np.ones(3)}, "has_audio is not bool"),
        ({"start_sec": np.full(3, np.inf)}, "a time is not finite"),
        ({"source": np.arange(3)}, "a name is no text"),
        ({"about": np.array("{}")}, "format"),
        ({"about": np.array(ABOUT.to_json().replace('"format": 1', '"format": 9'))}, "version"),
        ({"about": np.array(ABOUT.to_json().replace(" 7", ' "7"'))}, "step is no int"),
        ({"id": np.array([{}, {}, {}], object)}, "claims the shape"),
    ],
)
def test_an_index_that_was_tampered_with(tmp_path, changes, message):
    path = tmp_path / "index.npz"
    npz_with(path, **changes)
    with pytest.raises(UserError, match=message) as caught:
        read_index(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_damaged_bytes_are_told_or_harmless(tmp_path, suffix):
    path = tmp_path / f"index{suffix}"
    with new_index(path, ABOUT) as writer:
        writer.add(made_rows(20))
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for length in (0, 4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="is damaged"):
            read_index(path)
    for _ in range(150):
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=4):
            damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read_index(path)
        except UserError:
            refused += 1
    assert refused > 15


def test_no_more_memory_is_taken_than_the_file_is_large(tmp_path):
    path = tmp_path / "index.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("video.npy", bytes(10**7))
    with pytest.raises(UserError, match="claims to hold more than it has bytes"):
        read_index(path)
    zeros = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.zeros(10**6, "f4")), 100)
    rows = made_rows(1)
    columns = {name: [rows.text[name][0]] * 10**4 for name in rows.text}
    columns |= {name: [0.0] * 10**4 for name in ("start_sec", "end_sec")}
    columns |= {name: [True] * 10**4 for name in ("has_video", "has_audio")}
    about = dataclasses.replace(ABOUT, label_sets=())
    table = pyarrow.table(columns | {"video": zeros})
    table = table.replace_schema_metadata({"avt_jax": about.to_json()})
    parquet.write_table(table, tmp_path / "index.parquet", compression="gzip")
    with pytest.raises(UserError, match="claims to hold more vectors than it has bytes"):
        read_index(tmp_path / "index.parquet")


def test_an_index_knows_its_weights(predictor, tiny_run):
    about = about_run(predictor.run, tiny_run, projects=True, label_sets=("label",))
    assert about.weights == weights_checksum(predictor.run) and about.compared
    path = next(iter(predictor.run.params))
    params = predictor.run.params | {path: predictor.run.params[path] + np.float32(1)}
    assert weights_checksum(dataclasses.replace(predictor.run, params=params)) != about.weights
    assert About.from_json(about.to_json()) == about
    config = json.loads(json.dumps(dict(predictor.run.config), default=dict))
    config["losses"]["weights"]["contrastive"] = 0.0
    run = dataclasses.replace(predictor.run, config=config)
    assert not about_run(run, tiny_run, projects=True, label_sets=()).compared
