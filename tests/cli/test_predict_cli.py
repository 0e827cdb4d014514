import json
import subprocess
import sys

import pytest
from tiny_run import sample_videos_fixture, tiny_run_fixture, write_video  # noqa: F401

from avt_jax.cli import main as cli


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(run, *words):
    return cli.main(["predict", "--checkpoint", str(run), *map(str, words)])


def test_tables_pictures_and_a_bad_file_among_good_ones(
    tiny_run,
    sample_videos,
    here,
    capsys,
):
    (here / "text.mp4").write_text("no video\n" * 9)
    (here / "other").mkdir()
    write_video(here / "other" / "carphone_pristine.mp4", video_sec=0.5)
    code = predict(
        tiny_run,
        sample_videos / "bigbuckbunny.mp4",
        "text.mp4",
        sample_videos / "carphone_pristine.mp4",
        "other/carphone_pristine.mp4",
    )
    out, err = capsys.readouterr()
    assert code == 2
    [line] = [line for line in err.splitlines() if line.startswith("avt: error: ")]
    assert "text.mp4 is not a video" in line
    assert err.splitlines()[-1].startswith("avt: 1 of 4 files could not be classified; ")
    assert out.count("no sound") == 2 and "0:05.3" in out and "label " in out and " % " in out
    pictures = sorted(path.name for path in (here / "predictions").iterdir())
    assert pictures == ["bigbuckbunny.png", "carphone_pristine-2.png", "carphone_pristine.png"]
    assert "picture: predictions/carphone_pristine-2.png" in out


def test_json_is_all_that_stdout_holds(tiny_run, here, capsys):
    video = write_video(here / "a.mp4", video_sec=2, audio_sec=2)
    code = predict(
        tiny_run, video, "missing.mp4", "--json", "--top", 2, "--hop-sec", 0.5, "--no-picture"
    )
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert code == 2 and "missing.mp4" in err
    [file], [failed] = document["files"], document["failed"]
    assert document["step"] == 3 and file["path"] == str(video) and file["picture"] is None
    assert [w["start_sec"] for w in file["windows"]] == [0, 0.5, 1]
    assert len(file["top"]["label"]) == 2 and 0 < file["top"]["label"][0]["probability"] < 1
    assert failed["path"] == "missing.mp4" and "there is no file" in failed["error"]
    assert not (here / "predictions").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top", "0"], "--top 0: give 1 or more"),
        (["--hop-sec", "0"], "--hop-sec 0: give a positive number"),
        (["--hop-sec", "nan"], "--hop-sec nan: give a positive number"),
        (["--batch-size", "0"], "--batch-size 0: give 1 or more"),
        (["--pictures", "a.mp4/x"], "--pictures a.mp4/x: Not a directory"),
        (["--pictures", "x", "--no-picture"], "--pictures and --no-picture exclude each other"),
        (["--out", "x"], "--out x: the file of results ends in .jsonl or .csv; a folder for pict"),
        (["--out", "x/r.csv"], "the folder of --out x/r.csv does not exist"),
        (["--out", "r.csv", "--json"], "--json prints what --out writes; leave one out"),
        (["--retry-failed"], "--retry-failed is for the results of --out"),
        (["*.mov"], "no video or sound file matches '*.mov'"),
    ],
)
def test_bad_options(here, capsys, words, message):
    (here / "a.mp4").write_bytes(b"")
    assert predict("run", "a.mp4", *words) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"avt: error: {message}") and err.count("\n") == 1
    assert [path.name for path in here.iterdir()] == ["a.mp4"]


def test_no_run(here, capsys):
    assert predict(here, "a.mp4", "--no-picture") == 2
    assert "is not a run folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_help_is_quick(command):
    code = (
        f"import sys; from avt_jax.cli import {command} as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'jax', 'matplotlib', 'tensorflow_datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
