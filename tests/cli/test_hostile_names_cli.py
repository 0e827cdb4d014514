"""Names that would drive a terminal or a spreadsheet, from a folder of videos to shards."""

import csv
import shutil
import unicodedata

import pytest

from avt_jax.cli.common import run
from avt_jax.cli.data import doctor, extract, inspect, manifest, shards
from avt_jax.data.av_events.render import render_dataset
from avt_jax.data.manifests.manifest import read_manifest

CLASSES = ["[x]", "\x1b[31mred", "=1+1", "two\nlines", ":car:", "@cmd|' /C calc'!A0"]
FILES = ["0\x1b[2J.mp4", "-[bold]1.mp4", "=2\n.mp4", "tab\t.mp4"]
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    options = {"seed": 0, "clip_sec": 1.0, "size_px": 64, "num_workers": 0}
    render_dataset(root / "made", num_train=1, num_val=0, num_test=0, **options)
    (video,) = root.glob("made/videos/*.mp4")
    for name in CLASSES:
        (root / "mine" / name).mkdir(parents=True)
        (root / "mine" / name / FILES[0]).write_text("no video")
    for name, file in zip(CLASSES[:3], FILES[1:], strict=True):
        shutil.copy(video, root / "mine" / name / file)
    return root


def check_printed(text):
    # A progress bar begins its line anew.
    found = {c for c in text if unicodedata.category(c) in ("Cc", "Cs")} - {"\n", "\r"}
    assert not found, repr(text)


def check_cells(path):
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            assert not any(cell.startswith(FORMULAS) for cell in row), row


def test_from_folder_to_shards(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(folder / "mine")
    clips, out = tmp_path / "clips.csv", tmp_path / "[x]\x1b[1m"
    assert run(manifest.main, [".", "--out", str(clips), "--seed", "3"]) == 0
    check_cells(clips)
    wanted = {f"{folder}/mine/{name}/{FILES[0]}" for name in CLASSES}
    wanted |= {f"{folder}/mine/{n}/{f}" for n, f in zip(CLASSES[:3], FILES[1:], strict=True)}
    assert {clip.source for clip in read_manifest(clips).clips} == wanted
    arguments = ["--manifest", str(clips), "--out", str(out), "--short-side", "32", "--workers=1"]
    assert run(extract.main, arguments) == 0
    check_cells(out / "failed.csv")
    printed = "".join(capsys.readouterr())
    check_printed(printed)
    assert "3 clips" in printed and "6 failed" in printed and r"\x1b[31mred" in printed
    assert run(inspect.main, [str(out), "--num-clips", "2"]) == 0
    assert run(shards.main, ["verify", str(out), "--workers", "0"]) == 0
    assert run(doctor.main, [str(out)]) in (0, 1)
    printed = "".join(capsys.readouterr())
    check_printed(printed)
    for part in ("[x]", r"\x1b[31mred", r"two\nlines", ":car:", "nothing is damaged"):
        assert part in printed
    again = tmp_path / "again.csv"
    arguments = ["--split", str(clips), "--replace-splits", "--out", str(again)]
    assert run(manifest.main, arguments) == 0
    check_cells(again)
    assert {clip.source for clip in read_manifest(again).clips} == wanted


def test_errors_are_one_harmless_line(tmp_path, capsys):
    for command, arguments in (
        (extract.main, ["--manifest", f"{tmp_path}/a\x1b[31m\nb.csv", "--out", "x"]),
        (inspect.main, [f"{tmp_path}/a\x1b[31m\nb"]),
        (manifest.main, [f"{tmp_path}/a\x1b[31m\nb"]),
    ):
        assert run(command, arguments) == 2
        err = capsys.readouterr().err
        check_printed(err)
        assert r"a\x1b[31m\nb" in err and err.count("\n") == 1
    with pytest.raises(SystemExit) as ended:
        run(inspect.main, ["--\x1b[31mno"])
    assert ended.value.code == 2
    check_printed(capsys.readouterr().err)
