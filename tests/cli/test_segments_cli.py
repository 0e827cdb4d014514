"""`avt segments`: tables, JSON, CSV, pictures, scores, and files without sound."""

import csv
import json
import re

import numpy as np
import pytest
from pictures import like, read_png, span
from tiny_run import sample_videos_fixture, write_video  # noqa: F401

from avt_jax.audio.activity import ActivityConfig
from avt_jax.cli import segments
from avt_jax.cli.common import run
from avt_jax.data.av_events import render
from avt_jax.errors import UserError
from avt_jax.inference import activities


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segments") / "events"
    render.render_dataset(
        folder,
        num_train=0,
        num_val=0,
        num_test=2,
        seed=1,
        frame_rate_hz=2,
        size_px=32,
        snr_db=15.0,
        progress=False,
    )
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_scores_pictures_and_csv(events, here, capsys):
    files = [str(path) for path in sorted((events / "videos").iterdir())]
    words = [*files, "--truth", str(events / "events.csv"), "--csv", "found.csv"]
    assert run(segments.main, words) == 0
    out = capsys.readouterr().out
    assert float(re.search(r"2 files: frame F1 ([01]\.\d+)", out)[1]) > 0.95
    assert "picture: segments/test_00001.png" in out
    with open("found.csv", newline="") as file:
        found = list(csv.DictReader(file))
    with open(events / "events.csv", newline="") as file:
        true = list(csv.DictReader(file))
    assert len(found) == len(true)
    for name in ("onset_sec", "offset_sec"):
        times = [[float(row[name]) for row in rows] for rows in (found, true)]
        np.testing.assert_allclose(*times, atol=0.05)
    pictures = sorted(path.name for path in (here / "segments").iterdir())
    assert pictures == ["test_00000.png", "test_00001.png"]
    # Found in orange, true in green, in the same places.
    image_hwc = read_png(here / "segments" / pictures[0])
    bars = [span(like(image_hwc, colour), axis=1) for colour in ("#d97706", "#059669")]
    np.testing.assert_allclose(*bars, atol=0.02 * image_hwc.shape[1])


def test_json_and_files_that_cannot_be_used(events, here, capsys):
    mute = write_video(here / "mute.mp4", video_sec=1)
    (here / "text.mp4").write_text("no sound\n" * 9)
    good = events / "videos" / "test_00000.mp4"
    words = [str(mute), "text.mp4", str(good), "--json", "--no-picture"]
    assert run(segments.main, [*words, "--set", "min_gap_sec=0.05"]) == 2
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert "mute.mp4 has no audio stream" in err and "text.mp4" in err
    assert [failed["path"] for failed in document["failed"]] == [str(mute), "text.mp4"]
    [file] = document["files"]
    assert file["picture"] is None and file["activities"] and "score" not in file
    assert document["config"]["min_gap_sec"] == 0.05
    assert sorted(path.name for path in here.iterdir()) == ["mute.mp4", "text.mp4"]


def test_a_recording(sample_videos, here, capsys):
    assert run(segments.main, [str(sample_videos / "bigbuckbunny.mp4"), "--json"]) == 0
    [file] = json.loads(capsys.readouterr().out)["files"]
    # Whatever is found in it: in order, apart, within the file, and the loud entry at 2.1 to 3 s.
    times = np.ravel([(a["onset_sec"], a["offset_sec"]) for a in file["activities"]])
    assert (np.diff(times) > 0).all() and times[0] >= 0 and times[-1] <= file["duration_sec"] + 0.05
    assert any(a["onset_sec"] < 3.0 < a["offset_sec"] for a in file["activities"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "min_gap=0.1"], "no field 'min_gap' .did you mean 'min_gap_sec'"),
        (["--set", "low_db=soft"], "'soft' is no number"),
        (["--set", "low_db=-3"], "config.activity.low_db"),
        (["--truth", "missing.csv"], "cannot read missing.csv"),
    ],
)
def test_bad_options_are_named(here, words, message):
    with pytest.raises(UserError, match=message):
        segments.main(["a.mp4", *words])
    assert list(here.iterdir()) == []


def test_windows_of_a_long_file_cover_every_frame_once():
    for num_frames in (1, 5999, 6000, 6001, 10_000, 123_456):
        covered = np.zeros(num_frames, int)
        for start, end, first, last in activities.plan_windows(num_frames, margin_sec=10.0):
            assert 0 <= start <= first < last <= end <= num_frames and end - start <= 6000
            assert (first - start >= 1000 or first == 0) and (end - last >= 1000 or last == end)
            covered[first:last] += 1
        assert (covered == 1).all()


def test_seams_do_not_show(here, monkeypatch):
    """A file looked at through short windows gives what it gives as a whole."""
    path = write_video(here / "a.mp4", video_sec=0.5)
    rng = np.random.default_rng(0)
    sound = 0.001 * rng.standard_normal(16000 * 11)
    for start_sec in (1.0, 3.9, 5.7, 7.5, 9.0):
        place = round(16000 * start_sec)
        sound[place : place + 8000] += 0.05 * rng.standard_normal(8000)
    render.write_mp4(
        path, np.zeros((11, 32, 32, 3), np.uint8), sound.astype(np.float32), frame_rate_hz=1
    )
    config = ActivityConfig(max_activity_sec=0.8, max_edge_activity_sec=0.8)
    whole = activities.find_activities(path, config)
    monkeypatch.setattr(activities, "_WINDOW_SEC", 6.0)
    monkeypatch.setattr(activities, "_MARGIN_SEC", 1.6)
    monkeypatch.setattr(activities, "_MAX_COLUMNS", 100)
    done = []
    parts = activities.find_activities(path, config, on_window=lambda *c: done.append(c))
    assert len(done) > 2 and done[-1][0] == done[-1][1]
    assert len(whole.spans) == 5
    np.testing.assert_allclose(parts.spans, whole.spans, atol=0.021)
    assert len(parts.fbank) <= 100 and parts.column_sec > whole.column_sec
