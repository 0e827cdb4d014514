"""AV-Events: balanced, repeatable, unrelated modalities, true event times, nothing half-written."""

from __future__ import annotations

import collections
import csv
import dataclasses

import numpy as np
import pytest

from avt_jax.audio.melspec import fbank
from avt_jax.cli.data import synthesize
from avt_jax.data.av_events import audio, dataset, render, video
from avt_jax.data.media.frames import decode_frames
from avt_jax.data.media.probe import probe
from avt_jax.data.media.sound import decode_audio
from avt_jax.errors import UserError
from avt_jax.host.worker_pool import WorkerDied

SMALL = dict(num_train=4, num_val=2, num_test=2, seed=7, clip_sec=2.0, frame_rate_hz=10, size_px=64)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "events"
    render.render_dataset(folder, **SMALL, progress=False)
    return folder


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_classes_are_balanced_in_every_split():
    specs = render.specify_clips(num_train=160, num_val=32, num_test=40, seed=0)
    for split, count in (("train", 160), ("val", 32), ("test", 40)):
        labels = collections.Counter(spec.label for spec in specs if spec.split == split)
        assert set(labels) == set(render.CLASS_NAMES)
        assert sum(labels.values()) == count
        assert max(labels.values()) - min(labels.values()) <= 1
    assert len(render.CLASS_NAMES) == 16


def test_clips_of_different_splits_differ():
    specs = render.specify_clips(num_train=16, num_val=16, num_test=16, seed=0)
    assert len({spec.seed_parts for spec in specs}) == 48
    assert len({spec.path for spec in specs}) == 48


def test_one_splits_size_does_not_change_another():
    few = render.specify_clips(num_train=3, num_val=8, num_test=8, seed=5)
    many = render.specify_clips(num_train=300, num_val=8, num_test=8, seed=5)
    assert few[3:] == many[300:]


def test_nuisances_know_nothing_of_the_other_modality():
    """Changing one factor leaves the other modality bit-identical."""
    [spec] = render.specify_clips(num_train=1, num_val=0, num_test=0, seed=3, clip_sec=1.0)
    by_kind = [render.render_clip(dataclasses.replace(spec, kind=k)) for k in render.KINDS]
    for frames_thwc, _, events in by_kind[1:]:
        np.testing.assert_array_equal(frames_thwc, by_kind[0][0])
        assert events == by_kind[0][2]
    by_motion = [render.render_clip(dataclasses.replace(spec, motion=m)) for m in render.MOTIONS]
    for index, (frames_thwc, waveform, _) in enumerate(by_motion[1:]):
        np.testing.assert_array_equal(waveform, by_motion[0][1])
        assert (frames_thwc != by_motion[index][0]).any()


def test_motion_does_not_shift_what_is_drawn_afterwards():
    time_sec = np.arange(10) / 10
    following = set()
    for motion in render.MOTIONS:
        rng = np.random.default_rng(0)
        video.trajectory(motion, rng, time_sec=time_sec, size_px=64)
        following.add(rng.uniform())
    assert len(following) == 1


@pytest.mark.parametrize("seed", range(8))
def test_each_motion_moves_as_its_name_says(seed):
    time_sec = np.arange(40) / 10
    span = {}
    for motion in render.MOTIONS:
        center_t2, radius_t = video.trajectory(
            motion, np.random.default_rng(seed), time_sec=time_sec, size_px=128
        )
        assert (center_t2 > 0).all() and (center_t2 < 128).all()
        span[motion] = (*np.ptp(center_t2, axis=0), np.ptp(radius_t))
    moves = {motion: tuple(part > 5 for part in parts) for motion, parts in span.items()}
    assert moves == {
        "sweep": (True, False, False),
        "bounce": (False, True, False),
        "circle": (True, True, False),
        "pulse": (False, False, True),
    }


def test_a_disc_has_its_stated_area_and_place():
    frames_thwc = np.zeros((1, 64, 64, 3), np.uint8)
    for num_sides in (0, 3, 4, 6):
        frames_thwc[:] = 0
        shape = video.Shape(num_sides, 0.3, (200.0, 100.0, 0.0))
        video.draw_shape(frames_thwc, shape, np.array([[40.0, 20.0]]), np.array([10.0]))
        weight_hw = frames_thwc[0, :, :, 0] / 200.0
        assert abs(weight_hw.sum() / (np.pi * 10**2) - 1) < 0.03
        rows, columns = np.indices((64, 64))
        assert abs((weight_hw * rows).sum() / weight_hw.sum() - 20) < 0.3
        assert abs((weight_hw * columns).sum() / weight_hw.sum() - 40) < 0.3


def test_a_shape_outside_the_frame_is_not_drawn():
    frames_thwc = np.zeros((1, 32, 32, 3), np.uint8)
    shape = video.Shape(0, 0.0, (255.0, 255.0, 255.0))
    video.draw_shape(frames_thwc, shape, np.array([[-80.0, 16.0]]), np.array([5.0]))
    assert not frames_thwc.any()


@pytest.mark.parametrize("clip_sec", [1.0, 2.0, 4.0])
def test_sounds_do_not_overlap_and_stay_inside(clip_sec):
    counts = set()
    for seed in range(60):
        events = audio.place_events(np.random.default_rng(seed), clip_sec)
        counts.add(len(events))
        times = np.array(events).ravel()
        assert (np.diff(times) > 0).all()
        assert times[0] >= 0.1 and times[-1] <= clip_sec - 0.1
    assert counts == {1, 2, 3}


@pytest.mark.parametrize("kind", render.KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_sound_is_where_the_events_say(kind, seed):
    waveform, events = audio.synthesize_audio(
        kind, np.random.default_rng(seed), clip_sec=4.0, sample_rate_hz=16000
    )
    assert waveform.shape == (64000,) and np.abs(waveform).max() < 1.0
    inside = np.zeros(64000, bool)
    for onset_sec, offset_sec in events:
        inside[round(onset_sec * 16000) : round(offset_sec * 16000)] = True
    background_std = waveform[~inside].std()
    for onset_sec, offset_sec in events:
        # Sound from the first twentieth of a second to the last.
        for start_sec in (onset_sec, offset_sec - 0.05):
            edge = waveform[round(start_sec * 16000) :][:800]
            assert edge.std() > 3 * background_std
    assert waveform[inside].std() > 5 * background_std


@pytest.mark.parametrize("kind", render.KINDS)
@pytest.mark.parametrize("snr_db", [5.0, -10.0])
def test_the_background_is_as_loud_as_asked(kind, snr_db):
    """What remains when the sounds, known from a clip with a faint background, are taken out."""
    waves = []
    for level_db in (60.0, snr_db):
        waveform, events = audio.synthesize_audio(
            kind, np.random.default_rng(1), clip_sec=4.0, sample_rate_hz=16000, snr_db=level_db
        )
        waves.append(waveform.astype(float))
    inside = np.zeros(64000, bool)
    for onset_sec, offset_sec in events:
        inside[round(onset_sec * 16000) : round(offset_sec * 16000)] = True
    assert np.abs(waves[1]).max() < 0.95
    sounds = waves[0][inside]
    # The mix may have been made softer as a whole.
    gain = (sounds @ waves[1][inside]) / (sounds @ sounds)
    sound_power = gain**2 * np.mean(sounds**2)
    background_power = np.mean(waves[1][~inside] ** 2)
    assert abs(10 * np.log10(sound_power / background_power) - snr_db) < 1.0


def test_kinds_differ_in_their_spectrograms():
    """A chirp's peak rises nearly always, a tone's stays, noise has no peak, clicks leave gaps."""
    features = {}
    for kind in render.KINDS:
        sound = audio.make_sound(
            kind, np.random.default_rng(0), pitch=0.5, duration_sec=0.8, sample_rate_hz=16000
        )
        log_mel_sf = fbank(0.1 * sound)[5:-5]
        peak_s = log_mel_sf.argmax(axis=1)
        flatness = (log_mel_sf.max(axis=1) - np.median(log_mel_sf, axis=1)).mean()
        features[kind] = (
            np.median(np.diff(peak_s)),
            flatness,
            log_mel_sf.mean(axis=1).std(),
        )
    assert features["chirp"][0] >= 1 and features["tone"][0] == 0
    assert features["tone"][1] > 2 * features["noise"][1]
    assert features["clicks"][2] > 3 * features["noise"][2]


def test_written_files_hold_what_was_rendered(rendered):
    specs = render.specify_clips(**SMALL)
    manifest = rows_of(rendered / "clips.csv")
    assert [row["path"] for row in manifest] == [spec.path for spec in specs]
    assert list(manifest[0]) == ["path", "start_sec", "end_sec", "label", "split"]
    assert {(row["start_sec"], row["end_sec"]) for row in manifest} == {("0.0", "2.000")}
    events_of = collections.defaultdict(list)
    for row in rows_of(rendered / "events.csv"):
        events_of[row["path"]].append((float(row["onset_sec"]), float(row["offset_sec"])))
    for spec, row in zip(specs, manifest, strict=True):
        assert (row["label"], row["split"]) == (spec.label, spec.split)
        frames_thwc, waveform, events = render.render_clip(spec)
        np.testing.assert_allclose(events_of[spec.path], events, atol=1e-4)
        path = rendered / spec.path
        info = probe(path)
        assert abs(info.duration_sec - 2.0) < 0.1
        assert (info.width_px, info.height_px, info.frame_rate_hz) == (64, 64, 10.0)
        got = decode_frames(path, 0.0, 2.0, frame_rate_hz=10, short_side_px=64)
        assert got.shape == frames_thwc.shape
        assert np.abs(got.astype(int) - frames_thwc).mean() < 6
        sound = decode_audio(path, 0.0, 2.0)
        assert np.corrcoef(sound, waveform)[0, 1] > 0.9


def test_same_seed_same_data_whatever_the_workers(rendered, tmp_path):
    render.render_dataset(tmp_path / "again", **SMALL, num_workers=1, progress=False)
    for name in ("clips.csv", "events.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (rendered / name).read_bytes()
    for row in rows_of(rendered / "clips.csv"):
        first, second = rendered / row["path"], tmp_path / "again" / row["path"]
        frames = [
            decode_frames(p, 0, 2, frame_rate_hz=10, short_side_px=64) for p in (first, second)
        ]
        np.testing.assert_array_equal(*frames)
        np.testing.assert_array_equal(decode_audio(first, 0, 2), decode_audio(second, 0, 2))


def test_another_seed_gives_other_data():
    [first], [second] = (
        render.specify_clips(num_train=1, num_val=0, num_test=0, seed=seed) for seed in (0, 1)
    )
    second = dataclasses.replace(second, motion=first.motion, kind=first.kind)
    assert (render.render_clip(first)[0] != render.render_clip(second)[0]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_train": -1}, "train clips must be 0 or more, got -1"),
        ({"num_train": 0, "num_val": 0, "num_test": 0}, "no clips"),
        ({"seed": -1}, "seed"),
        ({"clip_sec": 0.5}, "clip_sec"),
        ({"clip_sec": float("nan")}, "clip_sec"),
        ({"frame_rate_hz": 0}, "frame_rate_hz"),
        ({"size_px": 65}, "size_px"),
        ({"snr_db": 61.0}, "snr_db"),
        ({"snr_db": float("nan")}, "snr_db"),
        ({"num_workers": -1}, "num_workers"),
    ],
)
def test_values_out_of_range_are_named(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        render.render_dataset(tmp_path / "out", **{**SMALL, **change}, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_used_folder_is_left_alone(tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not an empty folder"):
        render.render_dataset(tmp_path / "used", **SMALL, progress=False)
    (tmp_path / "file").write_text("keep")
    with pytest.raises(UserError, match="not an empty folder"):
        render.render_dataset(tmp_path / "file", **SMALL, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"used", "file"}


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(render, "write_mp4", fail)
    with pytest.raises(UserError, match="cannot write .* no space"):
        render.render_dataset(tmp_path / "out", **SMALL, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_is_told_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def die(function, tasks, *, num_workers):
        yield tasks[0], WorkerDied("the process that worked on it was ended by SIGKILL")

    monkeypatch.setattr(dataset, "ordered_map", die)
    with pytest.raises(UserError, match=r"ended by SIGKILL \(clips from videos/train_00000.mp4 on"):
        render.render_dataset(tmp_path / "out", **SMALL, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_command_renders_into_an_empty_folder(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    counts = ["--num-train", "1", "--num-val", "0", "--num-test", "0", "--num-workers", "0"]
    assert synthesize.main(["--out", str(tmp_path / "out"), "--clip-sec", "1", *counts]) == 0
    assert "rendered 1 clips" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "clips.csv",
        "events.csv",
        "videos",
    ]
