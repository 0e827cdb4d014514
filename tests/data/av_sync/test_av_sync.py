"""AV-Sync: relations that only both modalities tell, true times in files, few labels."""

from __future__ import annotations

import collections
import csv
import itertools

import numpy as np
import pytest

from avt_jax.cli.data import synthesize
from avt_jax.data.av_sync import audio, instants, render, things, video
from avt_jax.data.media.frames import decode_frames
from avt_jax.data.media.probe import probe
from avt_jax.data.media.sound import decode_audio
from avt_jax.errors import UserError

SMALL = dict(num_train=32, num_val=2, num_test=2, seed=7, frame_rate_hz=8, size_px=64)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def acts_of(number, relation=None, **options):
    specs = render.specify_clips(**dict(num_train=number, num_val=0, num_test=0, seed=1) | options)
    chosen = [spec for spec in specs if relation in (None, spec.relation)]
    return [(spec, render.plan_acts(spec)) for spec in chosen]


def circular(difference_sec, clip_sec):
    return (np.asarray(difference_sec) + clip_sec / 2) % clip_sec - clip_sec / 2


@pytest.mark.parametrize("clip_sec", [2.0, 3.0, 4.0, 10.0])
def test_instants_keep_their_distance_on_the_circle(clip_sec):
    rng = np.random.default_rng(0)
    for _ in range(200):
        found = instants.place_instants(rng, clip_sec)
        assert 1 <= len(found) <= 4 and (0 <= found).all() and (found < clip_sec).all()
        gaps = np.diff(np.append(found, found[0] + clip_sec))
        assert gaps.min() > 1.6 - 1e-9 or len(found) == 1


@pytest.mark.parametrize(("relation", "sign"), [("together", 0), ("late", 1), ("early", -1)])
def test_the_sound_is_where_the_relation_says(relation, sign):
    for _, (source, *_) in acts_of(160, relation):
        assert source.is_source and len(source.seen) == len(source.heard)
        # The nearest seen event before (late) or after (early) each sound, on the circle.
        shifts = circular(source.heard[:, None] - source.seen[None], 4.0)
        own = shifts[np.arange(len(shifts)), np.abs(shifts - 0.4 * sign).argmin(-1)]
        assert np.ptp(own) < 1e-9
        assert own[0] == 0 if sign == 0 else 0.3 <= sign * own[0] <= 0.5


def test_unrelated_sounds_fit_no_shift():
    """No shift of up to 0.6 s brings all sounds within 0.15 s of the seen events."""
    shifts = np.linspace(-0.6, 0.6, 121)
    for _, (source, *_) in acts_of(320, "unrelated"):
        assert len(source.seen) == len(source.heard)
        away = [
            np.abs(circular(source.heard[:, None] - source.seen[None] - shift, 4.0)).min(-1).max()
            for shift in shifts
        ]
        assert min(away) > 0.14


def test_one_modality_tells_nothing_of_the_relation():
    """Times, gaps and numbers of the events alone are distributed alike in all four relations.

    The largest difference of two empirical distributions (Kolmogorov and Smirnov) is below its
    0.1 % point. What is heard has the rhythm of what is seen, turned on the circle.
    """
    values = collections.defaultdict(list)
    for spec, (source, *_) in acts_of(2400):
        gaps = [np.diff(np.append(x, x[0] + 4.0)) for x in (source.seen, source.heard)]
        np.testing.assert_allclose(*map(np.sort, gaps), atol=1e-9)
        for name, times, gap in zip(
            ("seen", "heard"), (source.seen, source.heard), gaps, strict=True
        ):
            values[spec.relation, name, "time"].extend(times)
            values[spec.relation, name, "gap"].extend(gap)
            values[spec.relation, name, "number"].append(len(times))
    for name, what in itertools.product(("seen", "heard"), ("time", "gap", "number")):
        first = np.sort(values["together", name, what])
        for relation in instants.RELATIONS[1:]:
            other = np.sort(values[relation, name, what])
            grid = np.linspace(0, 4.5, 201)
            one, two = (np.searchsorted(x, grid) / len(x) for x in (first, other))
            bound = 1.95 * np.sqrt(1 / len(first) + 1 / len(other))
            assert np.abs(one - two).max() < bound, (name, what, relation)


def test_what_distracts():
    found = acts_of(64, distractors=1.0)
    for spec, (source, silent, unseen) in found:
        assert source.thing.kind == spec.thing
        kinds = {act.thing.kind for act in (source, silent, unseen)}
        assert len(kinds) == 3
        assert len(silent.seen) and not len(silent.heard) and silent.side != source.side
        assert len(unseen.heard) and not len(unseen.seen) and not unseen.side
    # What is drawn of the source does not depend on them.
    plain = acts_of(64, distractors=0.0)
    for (_, with_others), (_, (alone,)) in zip(found, plain, strict=True):
        np.testing.assert_array_equal(with_others[0].seen, alone.seen)
        np.testing.assert_array_equal(with_others[0].heard, alone.heard)
        assert with_others[0].thing == alone.thing


@pytest.mark.parametrize("kind", things.THINGS)
def test_a_larger_thing_sounds_lower_and_takes_more_of_the_picture(kind):
    make = things.MAKES[kind][0]
    pixels, centroids = [], []
    for size in (0.0, 1.0):
        thing = things.Thing(kind, make, size)
        rng = np.random.default_rng(0)
        still = video.draw_frames([], rng, num_frames=8, frame_rate_hz=8, size_px=64)
        rng = np.random.default_rng(0)
        seen = [(thing, np.array([0.125]), "left")]
        frames = video.draw_frames(seen, rng, num_frames=8, frame_rate_hz=8, size_px=64)
        pixels.append(int((frames[1] != still[1]).any(-1).sum()))
        wave = audio.make_sound(thing, np.random.default_rng(0), 16_000)
        assert np.abs(wave).max() == pytest.approx(1) and np.isfinite(wave).all()
        spectrum = np.abs(np.fft.rfft(wave, 2**14)) ** 2
        centroids.append(float(audio.pitch_hz(thing)))
        peak_hz = spectrum.argmax() / 2**14 * 16_000
        if kind in ("ball", "lamp"):
            assert peak_hz == pytest.approx(audio.pitch_hz(thing), rel=0.05)
    assert pixels[0] < pixels[1] and centroids[0] > 2 * centroids[1]


@pytest.mark.parametrize("kind", things.THINGS)
def test_a_thing_acts_at_its_instant(kind):
    """Every picture long after the instants is like the one before; those at them differ most."""
    thing = things.Thing(kind, things.MAKES[kind][0], 0.5)
    instants_n = np.array([1.0])
    frames = video.draw_frames(
        [(thing, instants_n, "right")],
        np.random.default_rng(0),
        num_frames=64,
        frame_rate_hz=16,
        size_px=64,
    ).astype(float)
    change = np.abs(np.diff(frames, axis=0)).sum((1, 2, 3))
    if kind == "ball":  # it never rests; it is lowest at the instant
        rows = [np.nonzero((frame != frames[40]).any(-1))[0].max(initial=0) for frame in frames]
        assert int(np.argmax(rows)) == 16
    else:
        assert abs(int(change.argmax()) - 16) <= 2
        assert change[32:50].max() < 0.1 * change.max()


def test_the_files_hold_what_the_tables_say(tmp_path):
    out = tmp_path / "sync"
    specs = render.specify_clips(**SMALL, distractors=0.0, snr_db=30.0)
    render.render_dataset(out, specs, progress=False)
    clips, heard = rows_of(out / "clips.csv"), rows_of(out / "events.csv")
    seen = rows_of(out / "seen.csv")
    assert len(clips) == 36 and {row["is_source"] for row in seen} == {"1"}
    assert {row["label"] for row in clips if row["split"] == "train"} == set(render.CLASS_NAMES)
    few = [row["label"] for row in rows_of(out / "labelled_10.csv") if row["split"] == "train"]
    assert sorted(few) == sorted(render.CLASS_NAMES)
    path = clips[0]["path"]
    media = probe(out / path)
    assert media.duration_sec == pytest.approx(4.0, abs=0.1)
    wave = decode_audio(out / path, start_sec=0.0, end_sec=4.0)
    for row in heard:
        onset_sec = float(row["onset_sec"])
        if row["path"] != path or not 0.1 < onset_sec < 3.8:
            continue
        before, after = (
            np.square(wave[round(16_000 * start) :][:800]).mean()
            for start in (onset_sec - 0.06, onset_sec + 0.005)
        )
        assert after > 3 * before
    frames = decode_frames(out / path, 0.0, 1.0, frame_rate_hz=8, short_side_px=64)
    assert frames.shape == (8, 64, 64, 3)


def test_few_labels_are_nested_and_even():
    specs = render.specify_clips(num_train=1600, num_val=16, num_test=16, seed=0)
    one, ten = (render.labelled_few(specs, percent) for percent in (1, 10))
    assert set(one) < set(ten) < set(specs)
    counts = collections.Counter(spec.label for spec in ten if spec.split == "train")
    assert set(counts.values()) == {10} and len(counts) == 16
    assert sum(spec.split == "train" for spec in one) == 16
    assert sum(spec.split != "train" for spec in one) == 32


def test_the_command(tmp_path, capsys):
    counts = ["--num-train", "2", "--num-val", "1", "--num-test", "0"]
    size = ["--clip-sec", "2", "--frame-rate-hz", "8", "--size-px", "32", "--num-workers", "0"]
    out = ["--data", "av-sync", "--out", str(tmp_path / "sync")]
    assert synthesize.main([*out, *counts, *size, "--distractors", "1"]) == 0
    assert "rendered 3 clips" in capsys.readouterr().out
    assert len({row["kind"] for row in rows_of(tmp_path / "sync" / "seen.csv")}) >= 2
    with pytest.raises(UserError, match="--distractors is for --data av-sync"):
        synthesize.main(["--out", str(tmp_path / "x"), "--distractors", "1"])
    with pytest.raises(UserError, match="distractors must be between 0 and 1, got 2"):
        render.specify_clips(**SMALL, distractors=2)
    with pytest.raises(UserError, match="clip_sec must be between 2 and 60 s, got 1"):
        render.specify_clips(**SMALL, clip_sec=1.0)
