import csv
import json
import shutil

import numpy as np
import pytest
from media_files import moving_bar, tone, write_clip, write_sound
from tiny_run import make_run, sample_videos_fixture, tiny_run_fixture, write_video  # noqa: F401

from avt_jax.data import records
from avt_jax.data.extraction.clip_record import ExtractConfig, make_record
from avt_jax.data.extraction.extract import extract
from avt_jax.data.loading import pipeline
from avt_jax.data.manifests.manifest import read_manifest
from avt_jax.errors import UserError
from avt_jax.evaluation.fusion import silence_video
from avt_jax.inference import Predictor, load
from avt_jax.inference.load import LoadedRun
from avt_jax.models.build import build_model
from avt_jax.models.kernels import kept

# The run's clips are 1 s long.


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return Predictor(tiny_run, batch_size=2)


def test_a_raw_file_gives_what_its_shard_gives(predictor, sample_videos, tmp_path):
    """Same decoder, same JPEG, same float16 log-mel: the same probabilities, bit for bit."""
    video = sample_videos / "bigbuckbunny.mp4"
    names = predictor.label_sets["label"]
    with open(tmp_path / "clips.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "start_sec", "end_sec", "label"])
        writer.writerows([video, start, start + 1, names[start]] for start in (0, 1))
    extract(
        read_manifest(tmp_path / "clips.csv"),
        tmp_path / "shards",
        config=ExtractConfig(frame_rate_hz=4.0, short_side_px=48, jpeg_quality=80),
        num_workers=1,
    )
    source = records.open_split(tmp_path / "shards", "train")
    clips = sorted((source[i] for i in range(2)), key=lambda clip: clip["start_sec"])
    [batch] = pipeline.eval_batches(clips, predictor._data, batch_size=2)
    from_shards = predictor.predict_batch(batch)["label"]
    found = predictor.predict_file(video)
    assert np.ptp(from_shards[0] - from_shards[1]) > 1e-4  # the two clips differ
    for row in range(2):
        np.testing.assert_array_equal(found.windows[row].probabilities["label"], from_shards[row])


def test_windows_and_overall(predictor, sample_videos):
    calls = []
    found = predictor.predict_file(
        sample_videos / "bigbuckbunny.mp4", on_window=lambda *c: calls.append(c)
    )
    assert [round(w.start_sec, 3) for w in found.windows] == [0, 1, 2, 3, 4, 4.312]
    assert calls == [(2, 6), (4, 6), (6, 6)]
    assert found.has_audio and found.duration_sec == pytest.approx(5.312)
    every = np.stack([w.probabilities["label"] for w in found.windows])
    assert every.shape == (6, 16)
    np.testing.assert_allclose(every.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.overall["label"], every.mean(0))
    assert np.isfinite(found.preview.fbank_sf).all()
    assert all(frame is not None for frame in found.preview.frames)


def test_padding_of_the_last_batch_changes_nothing(predictor, tmp_path):
    video = write_video(tmp_path / "a.mp4", video_sec=3, audio_sec=3)
    three = predictor.predict_file(video)
    assert len(three.windows) == 3  # two batches, the second half full
    four = predictor.predict_file(video, hop_sec=2 / 3)
    np.testing.assert_array_equal(
        three.windows[2].probabilities["label"], four.windows[3].probabilities["label"]
    )


def test_file_without_sound(predictor, sample_videos):
    found = predictor.predict_file(sample_videos / "carphone_pristine.mp4", hop_sec=2.0)
    assert not found.has_audio and len(found.windows) == 3
    assert np.isnan(found.preview.fbank_sf).all()


def test_short_file(predictor, tmp_path):
    found = predictor.predict_file(write_video(tmp_path / "a.mp4", video_sec=0.5))
    assert [(w.start_sec, w.end_sec) for w in found.windows] == [(0.0, 0.5)]


def test_sound_that_outlasts_the_pictures(predictor, tmp_path):
    video = write_video(tmp_path / "a.mp4", video_sec=2, audio_sec=5)
    found = predictor.predict_file(video)
    assert found.duration_sec == pytest.approx(5, abs=0.2)
    assert [w.start_sec for w in found.windows] == [0, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no file at"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("text " * 99), "is not a video or audio file"),
        (lambda path: path.mkdir(), "is not a regular file"),
    ],
)
def test_bad_files_are_told_in_one_sentence(predictor, tmp_path, make, message):
    make(tmp_path / "bad.mp4")
    with pytest.raises(UserError, match=message) as caught:
        predictor.predict_file(tmp_path / "bad.mp4")
    assert str(caught.value).endswith("it was not classified.") and "\n" not in str(caught.value)


def test_a_cut_off_file(predictor, sample_videos, tmp_path):
    whole = (sample_videos / "bigbuckbunny.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut.mp4 is cut off"):
        predictor.predict_file(tmp_path / "cut.mp4")


def test_many_files_give_what_each_gives_by_itself(predictor, tmp_path):
    files = [
        write_video(tmp_path / "a.mp4", video_sec=2, audio_sec=2),
        tmp_path / "missing.mp4",
        write_sound(tmp_path / "b.wav", seconds=3.0, onset_sec=1.0),
        write_video(tmp_path / "c.mp4", video_sec=1),
    ]
    found = dict(predictor.predict_files(files))
    assert list(found) == [str(path) for path in files]
    assert "there is no file" in str(found[str(files[1])])
    for path in (files[0], *files[2:]):
        alone, among = predictor.predict_file(path), found[str(path)]
        assert len(among.windows) == len(alone.windows)
        for one, other in zip(among.windows, alone.windows, strict=True):
            np.testing.assert_array_equal(one.probabilities["label"], other.probabilities["label"])
        np.testing.assert_array_equal(among.preview.fbank_sf, alone.preview.fbank_sf)
    sound = found[str(files[2])]
    assert sound.has_audio and not sound.has_video and set(sound.preview.frames) == {None}
    assert sound.duration_sec == 3.0 and len(sound.windows) == 3
    # The silence and the tone are not the same to the model; two seconds of the tone are.
    p = [window.probabilities["label"] for window in sound.windows]
    assert np.abs(p[0] - p[1]).max() > 1e-3
    embedded = predictor.embed(files[2])
    assert embedded.vectors["audio"].shape[0] == 3 and not embedded.has_video
    assert embedded.has_audio_w.all() and embedded.end_sec_w.tolist() == [1, 2, 3]
    with pytest.raises(UserError, match="the hop between windows is 0 s"):
        next(predictor.predict_files(files, hop_sec=0.0))


def test_sound_alone_is_what_a_silenced_video_is(predictor, tmp_path):
    """Its blank picture is the one that an evaluation shows in place of a video."""
    sound = write_sound(tmp_path / "a.wav", seconds=1.0)
    video = write_clip(tmp_path / "a.mkv", moving_bar(), waves=[tone()], audio_codec="pcm_s16le")
    data = predictor._data
    heard, seen = (
        make_record(path, 0.0, 1.0, config=predictor._decoder.extract, id="x", source="x")
        for path in (sound, video)
    )
    [batch] = pipeline.eval_batches([seen | {"labels": {}}], data, batch_size=2)
    silenced = predictor.predict_batch(silence_video(batch, data.video_mean))["label"][0]
    [window] = predictor.predict_file(sound).windows
    np.testing.assert_array_equal(heard["fbank"], seen["fbank"])
    np.testing.assert_array_equal(window.probabilities["label"], silenced)
    assert np.abs(silenced - predictor.predict_batch(batch)["label"][0]).max() > 1e-4


def test_bad_hop(predictor, tmp_path):
    video = write_video(tmp_path / "a.mp4", video_sec=2)
    with pytest.raises(UserError, match="the hop between windows is -1 s"):
        predictor.predict_file(video, hop_sec=-1)


def test_broken_parameters_are_told(predictor, tmp_path, monkeypatch):
    video = write_video(tmp_path / "a.mp4", video_sec=1)
    monkeypatch.setattr(
        predictor, "predict_batch", lambda batch: {"label": np.full((2, 16), np.nan)}
    )
    with pytest.raises(UserError, match="not finite"):
        predictor.predict_file(video)


def test_run_with_other_classes_than_its_checkpoint(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    facts = json.loads((run / "run.json").read_text())
    facts["label_sets"]["label"] = ["a", "b", "c"]
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"does not fit its config and classes: .* \(16,\)"):
        LoadedRun(run)


def test_run_of_another_version(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"]["colour"] = "blue"
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="config.data.colour.*version it was trained with"):
        LoadedRun(run)


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        Predictor(tmp_path)


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_one_modality(modality, tmp_path):
    run = make_run(tmp_path / "run", [f"--config.model.modalities={modality}"])
    predictor = Predictor(run, batch_size=1)
    video = write_video(tmp_path / "a.mp4", video_sec=2, audio_sec=2)
    [first, second] = predictor.predict_file(video).windows
    p, q = first.probabilities["label"], second.probabilities["label"]
    assert p.shape == (16,) and p.sum() == pytest.approx(1, rel=1e-5)
    # The brightness rises; the tone stays what it is, up to how the codec begins and ends.
    assert modality == "audio" or np.abs(p - q).max() > 1e-3


def test_a_model_takes_the_forms_that_were_measured(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("AVT_CACHE", str(tmp_path))
    kept.write({"attention": {"a case": "heads"}})
    told = []

    def build(*args, kernels, **rest):
        told.append(kernels.measured)
        return build_model(*args, kernels=kernels, **rest)

    monkeypatch.setattr(load, "build_model", build)
    load.LoadedRun(tiny_run)
    assert set(told) == {(("attention", "a case", "heads"),)}
