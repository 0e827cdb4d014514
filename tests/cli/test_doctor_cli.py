"""avt doctor, and three mistakes of people with their own clips: caught, mended, quiet."""

import csv
import json
import shlex
import subprocess
import sys

import pytest
from doctor_shards import clip, good, write
from media_files import render

from avt_jax.cli.common import run
from avt_jax.cli.data import doctor
from avt_jax.cli.main import main


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Nothing is wrong with them."""
    return write(tmp_path_factory.mktemp("doctor") / "shards", good())


@pytest.fixture(scope="module")
def leaking(tmp_path_factory):
    """A training clip's file is tested on, too."""
    made = good()
    made["test"].append(clip(500, source=made["train"][0]["source"]))
    return write(tmp_path_factory.mktemp("doctor") / "shards", made)


def findings(shards, *words, capsys):
    """What is found, by check."""
    main(["doctor", str(shards), "--json", *words])
    found = json.loads(capsys.readouterr().out)["findings"]
    return {finding["check"]: finding for finding in found}


def test_exit_codes(shards, leaking, capsys):
    assert run(doctor.main, [str(shards)]) == 0
    captured = capsys.readouterr()
    assert "32 clips; of all pictures and sound were looked at" in captured.out
    assert "nothing found" in captured.out and "32" in captured.err
    assert run(doctor.main, [str(leaking)]) == 1
    out = capsys.readouterr().out
    assert "error" in out and "1 error(s)" in out
    assert any(line.startswith("  1  avt manifest --split") for line in out.splitlines())


def test_json(leaking, capsys):
    assert run(doctor.main, [str(leaking), "--json", "--max-clips", "10"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["clips"] == 33 and found["shards"] == str(leaking)
    assert found["looked_at_closely"] == 10
    [finding] = found["findings"]
    assert finding["severity"] == "error" and finding["where"][0].endswith("(train, test)")


def test_a_config_is_looked_at_with_its_changes(shards, capsys):
    words = ["--config", "quickstart:smoke", "--config.data.num_frames=8"]
    found = findings(shards, *words, capsys=capsys)
    assert {"generated_clips", "clips_shorter"} <= set(found)
    option = found["clips_shorter"]["remedy"].split()[-1]
    assert option == "--config.data.clip_sec=0.5"
    path = shlex.split(found["generated_clips"]["remedy"])[-1]
    assert path == f"--config.data.path={shards}"
    found = findings(shards, *words, option, path, capsys=capsys)
    assert not {"generated_clips", "clips_shorter"} & set(found)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["none"], "no shard folder at none"),
        (["SHARDS", "--max-clips", "-1"], "--max-clips -1"),
        (["SHARDS", "--config.seed=1"], "--config.seed=1 changes a config; name one with --config"),
        (["SHARDS", "--max-clip=3"], "unexpected argument '--max-clip=3'"),
        (["SHARDS", "--config", "quikstart"], "did you mean 'quickstart'"),
        (["SHARDS", "--config", "quickstart", "--config.data.clip=1"], "did you mean"),
        (["SHARDS", "--config", "quickstart", "--jsn"], "unexpected argument '--jsn'"),
    ],
)
def test_mistakes_end_with_code_2(words, expected, shards, capsys):
    assert run(doctor.main, [str(shards) if w == "SHARDS" else w for w in words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("avt: error: ") and expected in error


def test_without_a_config_jax_is_not_imported(shards):
    code = (
        "import sys; from avt_jax.cli.data import doctor; doctor.main(sys.argv[1:])\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(shards)], check=True, capture_output=True)


# Three mistakes, all the way: each is told by a command before training, and what it says mends it.


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A current folder, and what puts videos there that all differ."""
    monkeypatch.chdir(tmp_path)
    numbers = iter(range(5, 100))

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            render(path, seconds=next(numbers) / 25, size_px=32)

    return make


def extract(manifest, out, capsys):
    """What the extraction says on stderr but its progress."""
    words = ["--manifest", manifest, "--out", out, "--short-side", "16", "--workers", "1"]
    assert main(["extract", *words]) == 0
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    return [line for line in lines if line.startswith(("error", "warning"))]


def call(command):
    """Runs commands as printed, joined by &&."""
    for one in command.split(" && "):
        name, *words = shlex.split(one)
        assert name == "avt" and main(words) == 0, one


def test_a_typo_in_a_class_name(place, capsys):
    rows = [
        (f"{n:02d}.mp4", "dog_barkng" if n == 3 else ("dog_barking", "rain")[n % 2])
        for n in range(14)
    ]
    place(*(path for path, _ in rows))

    def write_csv(path):
        with open(path, "w", newline="") as file:
            splits = ["train"] * 10 + ["val"] * 2 + ["test"] * 2
            lines = [(*row, split) for row, split in zip(rows, splits, strict=True)]
            csv.writer(file).writerows([("path", "label", "split"), *lines])

    write_csv("clips.csv")
    [line] = [x for x in extract("clips.csv", "shards", capsys) if "misspelt" in x]
    assert "'dog_barkng' (1 clips) looks like 'dog_barking' (7 clips)" in line
    assert "write one name for both" in line and "label of the manifest" in line
    assert "class_looks_like_another" in findings("shards", capsys=capsys)
    rows[3] = (rows[3][0], "dog_barking")
    write_csv("mended.csv")
    assert not any("misspelt" in line for line in extract("mended.csv", "mended", capsys))
    assert "class_looks_like_another" not in findings("mended", capsys=capsys)


def test_no_split_column(place, capsys):
    names = [f"{label}/{n}.mp4" for label in ("dog", "cat") for n in range(6)]
    place(*names)
    with open("mine.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *((n, n.split("/")[0]) for n in names)])
    [line] = [x for x in extract("mine.csv", "shards", capsys) if x.startswith("error")]
    assert "all 12 clips are for training" in line and "(the manifest has no splits)" in line
    assert main(["doctor", "shards"]) == 1
    capsys.readouterr()
    call(line.rpartition("; ")[2])
    extract("mine.split.csv", "mended", capsys)
    assert main(["doctor", "mended"]) == 0
    capsys.readouterr()
    assert "nothing_held_out" not in findings("mended", capsys=capsys)


def test_takes_of_one_recording_divided_at_random(place, capsys):
    stems = ("rex", "tom", "ann", "joe", "kim")
    place(*(f"mine/{c}/{s}_take{n}.mp4" for c in ("dog", "cat") for s in stems for n in range(3)))
    assert main(["manifest", "mine", "--out", "clips.csv"]) == 0
    *_, told, proposed = capsys.readouterr().out.splitlines()
    assert told.startswith("warning: 30 files look like 10 recording(s) in several parts")
    extract("clips.csv", "shards", capsys)
    found = findings("shards", capsys=capsys)["names_of_one_recording"]
    # Both ways out: what the manifest proposed, and what the doctor says.
    call(proposed)
    assert "groups of files: train 6, val 2, test 2" in capsys.readouterr().out
    extract("clips.grouped.csv", "mended", capsys)
    assert "names_of_one_recording" not in findings("mended", capsys=capsys)
    call(found["remedy"])
    capsys.readouterr()
    assert "names_of_one_recording" not in findings("shards.new", capsys=capsys)
