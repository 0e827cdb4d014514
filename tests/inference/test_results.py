"""A file of results loses nothing and holds nothing twice, whatever ends the job that writes it."""

import csv
import json
import os

import numpy as np
import pytest

from avt_jax.errors import UserError
from avt_jax.inference.prediction import FilePrediction, Window
from avt_jax.inference.result_formats import Made
from avt_jax.inference.results import key, open_results
from avt_jax.inference.windows import Preview

MADE = Made("runs/a", 30, 2, 8.0, 4.0)
ONE = {"label": ("cat", "=dog", "@bird")}
TWO = {"verb": ("cut", "open"), "noun": ("egg", "pan")}
HOSTILE = [
    "plain.mp4",
    "a,b.mp4",
    'quote".mp4',
    "two\nlines.mp4",
    "return\r.mp4",
    "\x1b[31mred.mp4",
    "=1+1.mp4",
    "+1.mp4",
    "-1.mp4",
    "@x.mp4",
    "\ttab.mp4",
    "'=twice.mp4",
    "ümläut \u2028.mp4",
    os.fsdecode(b"latin-\xe9.mp4"),
    " ",
]


def prediction(path, label_sets=ONE, first=0):
    p = {name: np.roll([0.6, 0.3, 0.1][: len(c)], first) for name, c in label_sets.items()}
    windows = (Window(0.0, 8.0, p), Window(4.0, 12.0, p))
    return FilePrediction(
        path=path,
        duration_sec=12.0,
        has_audio=True,
        has_video=False,
        label_sets=dict(label_sets),
        windows=windows,
        overall=p,
        preview=Preview((None,), np.zeros((1, 128))),
    )


def write(out, paths, *, made=MADE, label_sets=ONE, failing=(), again=()):
    """Adds those that are not there yet; returns which these are."""
    with open_results(out, made, label_sets, again=again) as results:
        todo = [path for path in paths if key(path) not in results.failed]
        for path in todo:
            bad = path in failing
            results.add(path, UserError(f"{path} is bad") if bad else prediction(path, label_sets))
    return todo


def read(out):
    """[(path, error or None)] as any program reads them."""
    if out.suffix == ".jsonl":
        lines = out.read_text().split("\n")
        assert lines.pop() == ""
        entries = [json.loads(line) for line in lines][1:]
        return [(entry["path"], entry.get("error")) for entry in entries]
    with open(out, newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert all(None not in row and None not in row.values() for row in rows)
    return [(row["path"].removeprefix("'"), row["error"].removeprefix("'") or None) for row in rows]


@pytest.fixture(params=["r.jsonl", "r.csv"])
def out(request, tmp_path, monkeypatch):
    """A file of results in the current folder, not there yet."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / request.param


def test_paths_of_any_kind_come_back(out):
    assert write(out, HOSTILE, failing=HOSTILE[::2]) == HOSTILE
    found = read(out)
    assert [path for path, _ in found] == HOSTILE
    assert [error for _, error in found] == [
        f"{path} is bad" if i % 2 == 0 else None for i, path in enumerate(HOSTILE)
    ]
    before = out.read_bytes()
    assert write(out, HOSTILE) == [] and out.read_bytes() == before


def test_a_file_cut_off_anywhere_is_continued_to_the_same_bytes(out):
    paths = HOSTILE[:8]
    write(out, paths, failing=paths[1:3])
    whole = out.read_bytes()
    done = 0
    for length in [*range(0, len(whole), 17), len(whole) - 2, len(whole) - 1]:
        out.write_bytes(whole[:length])
        todo = write(out, paths, failing=paths[1:3])
        assert out.read_bytes() == whole, length
        assert paths[len(paths) - len(todo) :] == todo, "what is there is not done again"
        assert len(paths) - len(todo) >= done
        done = len(paths) - len(todo)
    assert done == len(paths) - 1


def test_failed_ones_are_tried_again_when_asked_and_then_are_there_once(out):
    write(out, ["a", "b", "c", "d"], failing=("b", "d"))
    assert write(out, ["a", "b", "c", "d"]) == []
    # Of those that this command is about; the others stay.
    assert write(out, ["a", "b"], again=[key("a"), key("b")]) == ["b"]
    assert read(out) == [("a", None), ("c", None), ("d", "d is bad"), ("b", None)]
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_cells_are_no_formulas(tmp_path):
    out = tmp_path / "r.csv"
    with open_results(out, MADE, ONE) as results:
        results.add("=a", prediction("=a", first=1))
        results.add("b", UserError("@b is bad"))
    with open(out, newline="") as file:
        rows = list(csv.reader(file))
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for row in rows for cell in row)
    [named] = [dict(zip(rows[0], row, strict=True)) for row in rows[1:2]]
    assert named["path"] == "'=a" and named["label_1"] == "'=dog" and named["label_1_index"] == "1"
    assert named["label_1_probability"] == "0.6" and named["label_2"] == "'@bird"
    assert (named["run"], named["step"], named["top"], named["hop_sec"]) == (
        "runs/a",
        "30",
        "2",
        "4.0",
    )
    assert (named["has_video"], named["has_audio"], named["windows"]) == ("false", "true", "2")


def test_several_label_sets_have_their_classes_and_both_together(tmp_path):
    write(tmp_path / "r.csv", ["a"], label_sets=TWO)
    with open(tmp_path / "r.csv", newline="") as file:
        [row] = csv.DictReader(file)
    assert [row[f"{name}_1"] for name in ("verb", "noun", "action")] == ["cut", "egg", "cut + egg"]
    assert row["action_2_index"] in ("0 1", "1 0") and row["action_1_probability"] == "0.36"
    write(tmp_path / "r.jsonl", ["a"], label_sets=TWO)
    head, line = (tmp_path / "r.jsonl").read_text().splitlines()
    assert json.loads(head)["classes"] == {"verb": 2, "noun": 2}
    top = json.loads(line)["top"]
    assert top["noun"][1] == {"index": 1, "class": "pan", "probability": pytest.approx(0.3)}
    assert top["action"][0]["index"] == [0, 0] and len(json.loads(line)["windows"]) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(run="runs/b"), "--checkpoint runs/a"),
        (dict(step=31), "step 30"),
        (dict(top=3), "--top 2"),
        (dict(window_sec=4.0), "windows of 8 s"),
        (dict(hop_sec=8.0), "--hop-sec 4"),
    ],
)
def test_results_that_were_made_otherwise_are_refused(out, change, said):
    write(out, ["a"])
    before = out.read_bytes()
    with pytest.raises(UserError, match=r"made otherwise \(") as caught:
        write(out, ["a", "b"], made=Made(**(vars(MADE) | change)))
    assert said in str(caught.value) and str(out) in str(caught.value)
    assert out.read_bytes() == before
    # The same run, written otherwise.
    assert write(out, ["a", "b"], made=Made(**(vars(MADE) | {"run": "./runs/x/../a"}))) == ["b"]


@pytest.mark.parametrize(
    "content",
    [
        b"my notes",
        b"my notes\nof today\n",
        b"path,label\na,b\n",
        b"path,label",
        b'{"path": "a"}\n',
        b"[]\n",
        b"7\n",
        b"\xff\xfe\x00",
        b'{"avt_predict": 1}\n',
        b'{"avt_predict": 2, "run": "runs/a"}\n',
        b"\n\n",
    ],
)
def test_other_files_are_left_alone(out, content):
    out.write_bytes(content)
    with pytest.raises(UserError, match="no file of results"):
        write(out, ["a"])
    assert out.read_bytes() == content


def test_damage_in_the_middle_is_named(out):
    write(out, ["a", "b", "c"])
    lines = out.read_bytes().split(b"\n")
    lines[2] = lines[2][:20]
    out.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=r"(line|row) 3 is damaged"):
        write(out, ["d"])


def test_two_jobs_do_not_write_the_same_file(out):
    with open_results(out, MADE, ONE) as results:
        results.add("a", UserError("bad"))
        with pytest.raises(UserError, match="another 'avt predict' is writing"):
            write(out, ["b"])
        results.add("c", prediction("c"))
    with open_results(out, MADE, ONE, again=[key("a")]) as results:
        # It has another inode now, and is locked all the same.
        with pytest.raises(UserError, match="another 'avt predict' is writing"):
            write(out, ["b"])
        results.add("a", prediction("a"))
    assert read(out) == [("c", None), ("a", None)]


def test_a_full_disk_is_told_and_continued(out, monkeypatch):
    write(out, ["a"])
    kept = out.read_bytes()

    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

    with open_results(out, MADE, ONE) as results:
        monkeypatch.setattr(results, "_file", Full())
        with pytest.raises(UserError, match="No space left on device; make room"):
            results.add("b", prediction("b"))
    assert out.read_bytes() == kept and write(out, ["a", "b"]) == ["b"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pictures", "ends in .jsonl or .csv; a folder for pictures is given with --pictures"),
        ("folder.csv", "is a folder"),
        ("nowhere/r.csv", "does not exist; create it first"),
    ],
)
def test_places_that_cannot_be_written(tmp_path, name, message):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match=message):
        write(tmp_path / name, ["a"])
