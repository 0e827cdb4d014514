"""`avt predict --out`: many files, one file of results, whatever happens in between."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from media_files import write_sound
from tiny_run import make_run, tiny_run_fixture, write_video  # noqa: F401

from avt_jax.cli import main as cli

# Stands in for a model: notes which files it was given, and takes a moment for each.
STUB = """
import sys, time, types
import numpy as np
import avt_jax.inference
from avt_jax.cli import main
from avt_jax.errors import UserError
from avt_jax.inference.prediction import FilePrediction, Window
from avt_jax.inference.windows import Preview

class Predictor:
    run = types.SimpleNamespace(step=7)
    clip_sec, label_sets, multi_label = 2.0, {"label": ("a", "b")}, ()
    def __init__(self, *args, **options): pass
    def predict_files(self, paths, **options):
        for path in paths:
            time.sleep(0.005)
            with open("asked.txt", "a") as file:
                file.write(path + "\\n")
            with open(path) as file:
                p = {"label": np.array([float(file.read()), 0.0])}
            found = FilePrediction(path, 2.0, True, True, self.label_sets,
                                   (Window(0.0, 2.0, p),), p, Preview((None,), np.zeros((1, 128))))
            yield path, UserError(f"{path} is broken") if p["label"][0] < 0 else found

avt_jax.inference.Predictor = Predictor
sys.exit(main.run(main._dispatch, sys.argv[1:]))
"""


@pytest.fixture
def footage(tmp_path, monkeypatch):
    """The current folder, with 200 files of which three are broken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "footage").mkdir()
    for number in range(200):
        value = -1.0 if number in (20, 90, 199) else number / 200
        (tmp_path / "footage" / f"{number:03}.mp4").write_text(str(value))
    return tmp_path


def lines_of(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def stubbed(out, *words):
    code = [sys.executable, "-c", STUB, "predict", "--checkpoint", "runs/x", "footage"]
    return subprocess.Popen(
        [*code, "--out", out, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end_after(number, signum, out):
    """Sends the signal when so many lines are written; returns (exit code, stderr)."""
    process = stubbed(out.name)
    while lines_of(out) < number:
        time.sleep(0.005)
        assert process.poll() is None
    process.send_signal(signum)
    _, errors = process.communicate()
    return process.returncode, errors


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_200_files_killed_twice_are_all_there_once(footage, suffix):
    out = footage / f"results.{suffix}"
    assert end_after(40, signal.SIGKILL, out)[0] == -signal.SIGKILL
    with open(out, "ab") as file:
        file.write(b'{"path": "footage/0' if suffix == "jsonl" else b'"footage/0')
    code, errors = end_after(120, signal.SIGINT, out)
    assert code == 130 and errors.splitlines()[-1] == "avt: interrupted"
    number = lines_of(out) - 1
    assert 119 <= number < 199
    assert f"avt: {number} of 200 files are in {out.name}; the same command goes on" in errors
    process = stubbed(out.name)
    said, errors = process.communicate()
    assert process.returncode == 2
    assert f"{out.name}: 197 of 200 files classified, " in said and " done before; " in said
    last = errors.splitlines()[-1]
    assert last.startswith("avt: 3 of 200 files could not be classified; 'error' in results.")
    # One file of results, in which each is once.
    files = [f"footage/{number:03}.mp4" for number in range(200)]
    if suffix == "jsonl":
        found = [json.loads(line) for line in out.read_text().splitlines()[1:]]
        values = [entry["top"]["label"][0]["probability"] for entry in found if "top" in entry]
    else:
        with open(out, newline="") as file:
            found = list(csv.DictReader(file))
        values = [float(row["label_1_probability"]) for row in found if not row["error"]]
    assert [entry["path"] for entry in found] == files
    broken = [entry["path"] for entry in found if entry.get("error")]
    assert broken == [f"footage/{number:03}.mp4" for number in (20, 90, 199)]
    np.testing.assert_allclose(values, [n / 200 for n in range(200) if n not in (20, 90, 199)])
    # Nothing was done twice but what was under way when the job was ended.
    asked = (footage / "asked.txt").read_text().splitlines()
    assert set(asked) == set(files) and len(asked) <= 200 + 2
    # Nothing is left to do, and the broken ones are tried again only when asked.
    before = out.read_bytes()
    process = stubbed(out.name)
    process.communicate()
    assert process.returncode == 2 and out.read_bytes() == before
    (footage / "footage" / "020.mp4").write_text("0.1")
    process = stubbed(out.name, "--retry-failed")
    said, errors = process.communicate()
    assert process.returncode == 2 and "2 of 200" in errors and "198 of 200" in said
    assert len((footage / "asked.txt").read_text().splitlines()) == len(asked) + 3


def predict(run, *words):
    return cli.main(["predict", "--checkpoint", str(run), *map(str, words)])


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    """The current folder, with a video, two sounds and two broken files in mixed/."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_video(folder / "a.mp4", video_sec=2, audio_sec=2)
    write_sound(folder / "b.wav", seconds=1.0)
    write_sound(folder / "c.mp3", seconds=3.0, cover=True)
    (folder / "d.mp4").write_text("no video\n" * 9)
    (folder / "e\x1b[2J.mp4").write_bytes(b"")
    return tmp_path


def test_the_whole_way_with_a_model(tiny_run, mixed, capsys):
    assert predict(tiny_run, "mixed", "--out", "r.jsonl", "--top", 2, "--pictures", "seen") == 2
    out, err = capsys.readouterr()
    assert "r.jsonl: 3 of 5 files classified; " in out and "files/s" in out
    assert err.splitlines()[-1] == (
        "avt: 2 of 5 files could not be classified; 'error' in r.jsonl says why "
        "(--retry-failed tries again)"
    )
    assert "\x1b[2J" not in out + err
    whole = (mixed / "r.jsonl").read_text()
    head, *entries = map(json.loads, whole.splitlines())
    assert (head["run"], head["step"], head["top"]) == (str(tiny_run), 3, 2)
    assert [os.path.basename(entry["path"]) for entry in entries] == [
        "a.mp4", "b.wav", "c.mp3", "d.mp4", "e\x1b[2J.mp4"
    ]  # fmt: skip
    assert "is not a video or audio file" in entries[3]["error"] and "empty" in entries[4]["error"]
    assert [entry["has_video"] for entry in entries[:3]] == [True, False, False]
    assert [len(entry["windows"]) for entry in entries[:3]] == [2, 1, 3]
    best = entries[2]["top"]["label"]
    assert len(best) == 2 and set(best[0]) == {"index", "class", "probability"}
    assert sorted(p.name for p in (mixed / "seen").iterdir()) == ["a.png", "b.png", "c.png"]
    assert not (mixed / "predictions").exists()
    # Killed while it wrote the second result, and started again.
    (mixed / "r.jsonl").write_text(whole[: whole.index("b.wav") + 40])
    assert predict(tiny_run, "mixed/*", "--out", "r.jsonl", "--top", 2) == 2
    again = [json.loads(line) for line in (mixed / "r.jsonl").read_text().splitlines()]
    # The pattern names no suffix, so the same five files are meant.
    assert again == json.loads(json.dumps([head, *entries]))
    # The same as one file by itself.
    assert predict(tiny_run, "mixed/c.mp3", "--json", "--no-picture", "--top", 2) == 0
    [alone] = json.loads(capsys.readouterr().out.split("\n", 1)[1])["files"]
    assert {k: v for k, v in alone.items() if k != "picture"} == entries[2]


def test_other_options_are_refused_and_nothing_is_lost(tiny_run, mixed, capsys):
    assert predict(tiny_run, "mixed/b.wav", "--out", "r.csv") == 0
    before = (mixed / "r.csv").read_bytes()
    capsys.readouterr()
    assert predict(tiny_run, "mixed/b.wav", "--out", "r.csv", "--top", 3, "--hop-sec", 0.5) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "r.csv were made otherwise (--top 5, --hop-sec 1)" in line
    assert (mixed / "r.csv").read_bytes() == before


def test_a_model_of_pictures_refuses_sound_and_one_of_sound_needs_no_picture(
    mixed, capsys, tmp_path
):
    video = make_run(tmp_path / "video", ["--config.model.modalities=video"])
    audio = make_run(tmp_path / "audio", ["--config.model.modalities=audio"])
    write_video(mixed / "mute.mp4", video_sec=1)
    for run, file, message in (
        (video, "mixed/b.wav", "b.wav has no picture, and this model reads pictures alone"),
        (audio, "mute.mp4", "mute.mp4 has no sound, and this model reads sound alone"),
    ):
        assert predict(run, file, "--no-picture") == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line and line.endswith("it was not classified.")
    assert predict(audio, "mixed/b.wav") == 0
    assert "no picture, judged by the sound alone" in capsys.readouterr().out
    assert (mixed / "predictions" / "b.png").exists()
