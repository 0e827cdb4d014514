"""avt manifest, extract and inspect from the command line: output, exit codes, messages."""

import shutil
import subprocess
import sys

import pytest
from pictures import has_blank_edge, read_png

from avt_jax.cli.common import run
from avt_jax.cli.data import extract, inspect, manifest
from avt_jax.data.av_events.render import render_dataset

HEADER = "path,start_sec,end_sec,label,split\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """mine/cat and mine/dog with three different files each."""
    root = tmp_path_factory.mktemp("cli")
    options = {"seed": 0, "clip_sec": 1.0, "size_px": 64, "num_workers": 0}
    render_dataset(root / "made", num_train=2, num_val=0, num_test=0, **options)
    for name, video in zip(("cat", "dog"), sorted(root.glob("made/videos/*.mp4")), strict=True):
        (root / "mine" / name).mkdir(parents=True)
        for index in range(3):
            copy = shutil.copy(video, root / "mine" / name / f"{index}.mp4")
            # Bytes behind the last box change the file, not the video.
            with open(copy, "ab") as file:
                file.write(b"\x00\x00\x00\x09free" + bytes([index]))
    return root


def test_folder_to_shards_to_picture(folder, tmp_path, capsys):
    clips, shards = str(tmp_path / "clips.csv"), str(tmp_path / "shards")
    assert run(manifest.main, [str(folder / "mine"), "--out", clips]) == 0
    output = capsys.readouterr().out
    assert "cat" in output and "val" in output
    arguments = ["--manifest", clips, "--out", shards, "--short-side", "32", "--workers", "1"]
    assert run(extract.main, arguments) == 0
    captured = capsys.readouterr()
    assert "6 clips" in captured.out and "0 failed" in captured.out
    assert "6/6" in captured.err
    assert run(inspect.main, [shards, "--verify", "--num-clips", "2"]) == 0
    output = capsys.readouterr().out
    for part in ("3 shards are as they were written", "label: 2 classes", "dog", "32x32 (6)"):
        assert part in output
    image_hwc = read_png(tmp_path / "shards" / "contact_sheet.png")
    assert has_blank_edge(image_hwc) and image_hwc.shape[1] > 1500, "two clips side by side"
    assert (image_hwc.std(-1) > 0.02).mean() > 0.1, "colours of frames and spectrograms"


def test_class_list_fixes_the_indices(folder, tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("owl\ndog\ncat\n")
    video = folder / "mine" / "cat" / "0.mp4"
    (tmp_path / "clips.csv").write_text(f"{HEADER}{video},,,cat,test\n")
    arguments = ["--manifest", str(tmp_path / "clips.csv"), "--out", str(tmp_path / "shards")]
    arguments += ["--classes", f"label={tmp_path / 'classes.txt'}", "--workers", "1"]
    assert run(extract.main, arguments) == 0
    picture = tmp_path / "sheet.png"
    assert run(inspect.main, [str(tmp_path / "shards"), "--out", str(picture)]) == 0
    assert "2 classes without a clip: owl, dog" in capsys.readouterr().out
    assert picture.exists() and not (tmp_path / "shards" / "contact_sheet.png").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--manifest", "none.csv"], "none.csv does not exist"),
        (["--manifest", "empty.csv"], "is empty"),
        (["--manifest", "dots.csv"], "line 2: path '../a.mp4' contains '..'"),
        (["--manifest", "gone.csv"], "none of the 1 clips"),
        (["--manifest", "gone.csv", "--frame-rate", "0"], "frame_rate_hz 0"),
        (["--manifest", "gone.csv", "--frame-rate", "nan"], "frame_rate_hz nan"),
        (["--manifest", "gone.csv", "--workers", "0"], "0 workers"),
        (["--manifest", "gone.csv", "--clips-per-shard", "0"], "clips_per_shard 0"),
        (["--manifest", "gone.csv", "--clip-timeout", "0"], "clip_timeout_sec 0"),
        (["--manifest", "gone.csv", "--", "--flink_master=x"], "--flink_master=x is no option"),
        (["--manifest", "gone.csv", "--classes", "x"], "label=classes.txt"),
        (["--manifest", "gone.csv", "--classes", "label=none.txt"], "none.txt does not exist"),
    ],
)
def test_mistakes_end_with_code_2_and_write_nothing(
    arguments, expected, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "dots.csv").write_text(HEADER + "../a.mp4,,,x,\n")
    (tmp_path / "gone.csv").write_text(HEADER + "gone.mp4,,,x,\n")
    before = sorted(tmp_path.iterdir())
    assert run(extract.main, ["--out", "out", *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("avt: error: ") and expected in error
    assert sorted(tmp_path.iterdir()) == before


def test_inspect_mistakes(tmp_path, capsys):
    assert run(inspect.main, [str(tmp_path)]) == 2
    assert "is not a shard folder" in capsys.readouterr().err
    assert run(inspect.main, [str(tmp_path), "--num-clips", "-1"]) == 2
    assert "--num-clips -1" in capsys.readouterr().err


def test_as_modules(tmp_path):
    for name in ("extract", "inspect", "manifest"):
        command = [sys.executable, "-m", f"avt_jax.cli.data.{name}", "--help"]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert f"usage: avt {name}" in result.stdout
