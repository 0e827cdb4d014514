"""Sound files become clips without a picture, which the whole way to a batch takes as such."""

from __future__ import annotations

import csv
import shutil

import av
import numpy as np
import pytest
from media_files import SOUND_SUFFIXES, remux, render, write_manifest, write_sound

from avt_jax import axes
from avt_jax.cli.common import run as run_command
from avt_jax.cli.data import inspect, shards
from avt_jax.cli.data import manifest as manifest_command
from avt_jax.data import records
from avt_jax.data.extraction import extract as extraction
from avt_jax.data.extraction.clip_record import ExtractConfig, make_record
from avt_jax.data.loading import pipeline
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.manifests.manifest import read_manifest
from avt_jax.data.manifests.media_files import SOUND_SUFFIXES as KNOWN
from avt_jax.data.media import probe as probe_module
from avt_jax.data.media import scan as scan_module
from avt_jax.data.media.container import DecodeError
from avt_jax.data.media.probe import probe
from avt_jax.data.shard_tools import summary
from avt_jax.data.shard_tools.verify import verify_folder
from avt_jax.errors import UserError

CONFIG = ExtractConfig(frame_rate_hz=8.0, short_side_px=48)
# What encoders put in front, and cannot always say so (.aac): at most 2048 samples at 16 kHz.
LATE_ROWS = 13


def make(path, start_sec=None, end_sec=None):
    return make_record(path, start_sec, end_sec, config=CONFIG, id="x", source="x")


def onset_row(record):
    return int((record["fbank"].astype(np.float32).max(axis=1) > -5).argmax())


def test_every_kind_of_sound_file_is_tried():
    assert set(SOUND_SUFFIXES) == KNOWN


@pytest.mark.parametrize("suffix", SOUND_SUFFIXES)
def test_sound_without_a_picture(suffix, tmp_path):
    path = write_sound(tmp_path / f"a{suffix}", seconds=3.0, onset_sec=2.0)
    media = probe(path)
    assert media.has_audio and not media.has_video
    assert media.duration_sec == pytest.approx(3.0, abs=0.15)
    record = make(path)
    assert record["frames"] == [] and record["flags"] == ["no_video"] and record["has_audio"]
    assert len(record["fbank"]) == pytest.approx(298, abs=15)
    assert 197 <= onset_row(record) <= 200 + LATE_ROWS
    # The same moment in a clip from the middle: found by seeking.
    middle = make(path, 1.5, 2.5)
    assert len(middle["fbank"]) == 98 and middle["flags"] == ["no_video"]
    assert onset_row(middle) == onset_row(record) - 150


@pytest.mark.parametrize("suffix", [".mp3", ".flac"])
def test_a_picture_of_the_cover_is_no_video(suffix, tmp_path):
    path = write_sound(tmp_path / f"a{suffix}", cover=True)
    with av.open(str(path)) as opened:
        assert len(opened.streams.video) == 1, "the case should have a cover"
    assert not probe(path).has_video
    record = make(path)
    assert record["frames"] == [] and record["flags"] == ["no_video"]


def test_the_length_of_sound_is_counted_where_the_header_only_guesses(tmp_path, monkeypatch):
    # Loud, then silent: the bit rate of the start says nothing about the rest.
    path = write_sound(tmp_path / "a.aac", seconds=6.0, onset_sec=5.0)
    with av.open(str(path)) as opened:
        guessed_sec = opened.duration / av.time_base
    assert abs(guessed_sec - 6.0) > 1.0, "the case should be one where the guess is wrong"
    assert probe(path).duration_sec == pytest.approx(6.0, abs=0.15)
    opens = []
    monkeypatch.setattr(
        probe_module,
        "scan",
        lambda *f, real=probe_module.scan: opens.append(f) or real(*f),
    )
    make(path)
    assert not opens, "a file is gone through once"
    write_sound(path, seconds=2.0)
    assert probe(path).duration_sec == pytest.approx(2.0, abs=0.15)


def test_the_length_of_large_sound_is_counted_too(tmp_path, monkeypatch):
    monkeypatch.setattr(scan_module, "_SMALL_BYTES", 1000)
    for suffix in (".aac", ".mp3", ".flac", ".wav", ".m4a", ".ogg"):
        path = write_sound(tmp_path / f"a{suffix}", seconds=6.0, onset_sec=5.0)
        assert probe(path).duration_sec == pytest.approx(6.0, abs=0.15), suffix


def test_spans_and_ends(tmp_path):
    path = write_sound(tmp_path / "a.wav", seconds=3.0)
    assert make(path, 1.0, 9.0)["flags"] == ["short", "no_video"]
    assert make(path, 2.0, 9.0)["end_sec"] == 3.0
    for start_sec, end_sec, reason in [
        (3.5, 4.0, "span_past_end"),
        (1.0, 1.02, "unreadable"),  # shorter than one row of a spectrogram
    ]:
        with pytest.raises(DecodeError) as caught:
            make(path, start_sec, end_sec)
        assert caught.value.reason_code == reason
    quiet = write_sound(tmp_path / "quiet.wav", seconds=1.0, onset_sec=1.0)
    assert make(quiet)["flags"] == ["silent_audio", "no_video"]


def test_damaged_sound_has_no_picture_to_fall_back_on(tmp_path):
    whole = write_sound(tmp_path / "whole.flac")
    broken = remux(whole, tmp_path / "broken.flac", lambda *packet: b"\xff" * packet[2].size)
    with pytest.raises(DecodeError) as caught:
        make(broken)
    assert caught.value.reason_code == "unreadable"


def test_a_video_that_has_lost_its_picture_is_told_and_the_advice_works(tmp_path):
    path = write_sound(tmp_path / "a.m4a").rename(tmp_path / "a.mp4")
    with pytest.raises(DecodeError, match="is called .mp4 .*call it .m4a") as caught:
        make(path)
    assert caught.value.reason_code == "no_video"
    assert make(path.rename(tmp_path / "b.m4a"))["has_audio"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of files: with both, with a picture only, with sound only."""
    folder = tmp_path_factory.mktemp("mixed")
    for name in ("a", "b"):
        (folder / name).mkdir()
        render(folder / name / "both.mp4", hue=ord(name))
        render(folder / name / "mute.mp4", sound=False, hue=ord(name))
        write_sound(folder / name / "heard.mp3", seconds=1.0)
    write_sound(folder / "a" / "other.wav", seconds=1.5)
    return folder


@pytest.fixture(scope="module")
def stored(folder):
    """(summary, folder) of the shards of those files."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    rows = [(path.relative_to(folder), "", "", path.parent.name, "train") for path in paths]
    clips = read_manifest(write_manifest(folder / "clips.csv", rows))
    found = extraction.extract(clips, folder / "shards", config=CONFIG, num_workers=1)
    return found, folder / "shards"


def test_shards_of_sound_alone_are_whole_and_counted(stored, capsys):
    found, path = stored
    assert found.num_clips == {"train": 7}
    assert found.num_without_audio == {"train": 2} and found.num_without_video == {"train": 3}
    assert verify_folder(path, num_workers=0).problems == ()
    counted = summary.summarize(path).splits["train"]
    assert (counted.num_without_audio, counted.num_without_video) == (2, 3)
    assert sum(counted.frame_sizes.values()) == 4 and counted.flag_counts["no_video"] == 3
    assert inspect.main([str(path), "--num-clips", "7"]) == 0
    out = capsys.readouterr().out
    assert "sound alone, without a picture: train 3\n" in out
    assert (path / "contact_sheet.png").stat().st_size > 1000
    # The same once more: read from what was stored.
    again = extraction.extract(
        read_manifest(path.parent / "clips.csv"), path, config=CONFIG, num_workers=1
    )
    assert again.num_without_video == {"train": 3}


def test_shard_tools_keep_clips_of_sound_alone(stored, tmp_path):
    _, path = stored
    assert run_command(shards.main, ["reshard", str(path), str(tmp_path / "new")]) == 0
    one, two = (list(records.open_split(place, "train")) for place in (path, tmp_path / "new"))
    assert [clip["flags"] for clip in one] == [clip["flags"] for clip in two]
    assert sum(not records.has_video(clip) for clip in two) == 3
    assert verify_folder(tmp_path / "new", num_workers=0).problems == ()
    assert run_command(shards.main, ["stats", str(path), "--workers", "0"]) == 0


def test_batches_have_blank_frames_where_there_is_no_picture(stored):
    _, path = stored
    config = DataConfig(
        path=str(path), num_frames=2, clip_sec=0.5, frame_size_px=16, num_threads=0, num_workers=0
    )
    source = records.open_split(path, "train")
    blind = {clip["id"] for clip in source if not clip["frames"]}
    [evaluated] = pipeline.eval_batches(source, config, batch_size=7)
    iterator = pipeline.make_train_iterator(source, config, batch_size=7, seed=0)
    trained = next(iterator)
    iterator.close()
    for batch in (evaluated, trained):
        has_video = [clip not in blind for clip in batch[axes.ID]]
        assert batch[axes.HAS_VIDEO].tolist() == has_video and sum(has_video) == 4
        is_blank = (batch[axes.VIDEO] == 115).all(axis=(1, 2, 3, 4))
        assert is_blank.tolist() == [not has for has in has_video]
        assert (batch[axes.HAS_AUDIO] | batch[axes.HAS_VIDEO]).all()


def test_a_folder_of_sounds_and_videos_becomes_a_manifest(tmp_path, folder, capsys):
    for name in ("a", "b"):
        shutil.copytree(folder / name, tmp_path / "mine" / name)
        for number in range(8):
            (tmp_path / "mine" / name / f"{number}.mp4").write_text(f"{name}{number}")
            (tmp_path / "mine" / name / f"{number}.WAV").write_text(f"sound of {name}{number}")
        (tmp_path / "mine" / name / "notes.txt").write_text("no media")
    out = tmp_path / "clips.csv"
    assert manifest_command.main([str(tmp_path / "mine"), "--out", str(out), "--seed", "3"]) == 0
    with open(out, newline="") as file:
        split = {row["path"]: row["split"] for row in csv.DictReader(file)}
    assert len(split) == 2 * (3 + 16) + 1 and "mine/a/heard.mp3" in split
    # A sound beside a video of the same name was most likely cut from it.
    for name in ("a", "b"):
        for number in range(8):
            assert split[f"mine/{name}/{number}.mp4"] == split[f"mine/{name}/{number}.WAV"]
    assert {"train", "val", "test"} == set(split.values())


def test_a_folder_that_may_not_be_read_is_told(folder, tmp_path, monkeypatch):
    from avt_jax.data.manifests.media_files import media_files

    def refuse(top):
        raise PermissionError(13, "Permission denied", str(top))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(UserError, match="cannot read the folder .*: Permission denied"):
        list(media_files(folder))
