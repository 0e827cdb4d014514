"""`avt evaluate --epic` from shards to a submission, on one device and on eight."""

import csv
import json
import zipfile

import jax
import numpy as np
import pytest
from small_shards import clip
from tiny_run import make_run

from avt_jax.cli import main as cli
from avt_jax.data.records.writer import RecordWriter
from avt_jax.evaluation.epic import annotations

SIZES = {"verb": 97, "noun": 300}
SPLITS = ("train", "val", "test")


def spans(split):
    """(narration, video, start, stop, verb, noun) of eight clips, two of one span."""
    first = 10 * SPLITS.index(split)
    for i in range(8):
        start = 2.0 * (i // 2 if i < 2 else i)
        video = f"P0{i % 4 // 2 + 1}_{first}"
        yield f"{video}_{i}", video, start, start + 1, (5 * i + first) % 97, 31 * i % 300


@pytest.fixture(scope="module")
def epic(tmp_path_factory):
    """(shards, annotation folder, run)."""
    folder = tmp_path_factory.mktemp("epic")
    sets = {name: tuple(f"{name}{i}" for i in range(n)) for name, n in SIZES.items()}
    (folder / "shards").mkdir()
    writer = RecordWriter(folder / "shards", label_sets=sets, frame_rate_hz=8.0, short_side_px=24)
    for split in SPLITS:
        lines = [
            "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,verb_class,noun_class"
        ]  # noqa: E501
        for i, (name, video, start, stop, verb, noun) in enumerate(spans(split)):
            lines.append(f"{name},{video[:3]},{video},00:00:{start},00:00:{stop},{verb},{noun}")
            source = f"{video[:3]}/videos/{video}.MP4"
            writer.add(split, clip(i, source=source, start_sec=start, end_sec=stop,
                                   labels={"verb": verb, "noun": noun}))  # fmt: skip
        if split == "test":  # which has no classes
            lines = [line.rsplit(",", 2)[0] for line in lines]
        (folder / annotations.SEGMENT_FILES[split]).write_text("\n".join(lines) + "\n")
    writer.close()
    for name in annotations.UNSEEN_FILES.values():
        (folder / name).write_text("participant_id\nP02\n")
    (folder / annotations.TAIL_FILES["verb"]).write_text("verb\n10\n15\n")
    (folder / annotations.TAIL_FILES["noun"]).write_text("noun\n0\n")
    run = make_run(folder / "run", [f"--config.data.path={folder / 'shards'}"])
    return folder / "shards", folder, run


def evaluate(run, *words):
    words = ["--split", "val", "--no-baseline", *words]
    return cli.main(["evaluate", "--checkpoint", str(run), *map(str, words)])


def test_parts_and_submission(epic, tmp_path, capsys):
    _, folder, run = epic
    sent = tmp_path / "sent.json"
    words = ["--epic", folder, "--epic-submission", sent, "--sls", 2, 3, 3]
    assert evaluate(run, "--out", tmp_path / "out", *words) == 0
    shown = capsys.readouterr()
    assert "unseen participants" in shown.out and f"wrote {sent}" in shown.out
    assert "have no clip" not in shown.err and "wrote" in shown.out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    parts = results["epic-kitchens-100"]
    assert list(parts) == ["overall", "unseen participants", "tail classes", "P01", "P02"]
    for task in ("verb", "noun", "action"):
        for k in ("top1", "top5"):
            assert parts["overall"][task][k] == results[task][k]
            low, high = results[task][f"{k}_interval"]
            assert low <= results[task][k] <= high
        low, high = results[task].get("mean_class_accuracy_interval", (0, 1))
        assert low <= results[task].get("mean_class_accuracy", 0) <= high
        assert parts["unseen participants"][task] == parts["P02"][task]
    counts = {task: parts["tail classes"][task]["count"] for task in ("verb", "noun", "action")}
    assert counts == {"verb": 2, "noun": 1, "action": 2}  # the noun is of one of the verbs' clips
    assert (tmp_path / "out" / "epic.csv").exists()

    scores = json.loads(sent.read_text())
    assert (scores["sls_pt"], scores["sls_tl"], scores["sls_td"]) == (2, 3, 3)
    assert set(scores["results"]) == {name for name, *_ in spans("val")}
    with open(tmp_path / "out" / "clips.csv", newline="") as file:
        for row, (name, *_) in zip(csv.DictReader(file), spans("val"), strict=True):
            one = scores["results"][name]
            for task in SIZES:
                best = max(one[task], key=one[task].get)
                assert row[f"{task}_predicted"] == f"{task}{best}"
            best = ",".join(max(one[task], key=one[task].get) for task in SIZES)
            assert next(iter(one["action"])) == best and len(one["action"]) == 100

    # Another batch, with padding, on one device: the same.
    devices = jax.devices()
    assert len(devices) == 8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: devices[:1])
        more = ["--batch-size", 3, "--out", tmp_path / "again"]
        assert evaluate(run, *more, *words[:3], tmp_path / "again.json", *words[4:]) == 0
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    assert again["epic-kitchens-100"] == parts
    other = json.loads((tmp_path / "again.json").read_text())["results"]
    for name, one in scores["results"].items():
        for task in SIZES:
            np.testing.assert_allclose(
                list(other[name][task].values()), list(one[task].values()), rtol=1e-4
            )


def test_segments_without_classes(epic, tmp_path, capsys):
    _, folder, run = epic
    words = ["--epic", folder, "--epic-submission", tmp_path / "t.zip", "--sls", 2, 3, 3]
    assert evaluate(run, "--split", "test", "--out", tmp_path / "out", *words) == 0
    shown = capsys.readouterr()
    assert "has no classes: accuracies of these clips say nothing" in shown.err
    assert "unseen participants" not in shown.out
    assert "epic-kitchens-100" not in json.loads((tmp_path / "out/results.json").read_text())
    with zipfile.ZipFile(tmp_path / "t.zip") as sent:
        assert set(json.loads(sent.read("test.json"))["results"]) == {n for n, *_ in spans("test")}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epic-submission", "a.json"], "--epic-submission needs --epic ANNOTATIONS"),
        (["--sls", "1", "2", "3"], "--sls needs --epic ANNOTATIONS"),
        (["--epic", "{}", "--sls", "1", "2", "3"], "add --epic-submission FILE"),
        (["--epic", "{}", "--epic-submission", "a.json"], "needs --sls PT TL TD"),
        (["--epic", "{}", "--epic-submission", "a.csv", "--sls", "1", "2", "3"], "in .json or"),
        (["--epic", "{}", "--epic-submission", "a.zip", "--sls", "1", "2", "9"], "from 0 to 5"),
        (["--epic", "nowhere"], "nowhere/EPIC_100_validation.csv does not exist"),
        (["--epic", "{}", "--split", "train", "--data", "generated:4:verb=97,noun=300"], "class 0"),
    ],
)
def test_mistakes_are_one_sentence(epic, tmp_path, capsys, words, message):
    _, folder, run = epic
    words = [word.replace("{}", str(folder)) for word in words]
    assert evaluate(run, "--out", tmp_path / "out", *words) == 2
    err = capsys.readouterr().err
    assert "avt: error: " in err and message in err
    assert not (tmp_path / "out").exists()


def test_clips_that_are_no_segments(epic, tmp_path, capsys):
    _, folder, run = epic
    other = tmp_path / "files"
    other.mkdir()
    for path in folder.glob("*.csv"):
        lines = path.read_text().splitlines()
        short = path.name == annotations.SEGMENT_FILES["val"]
        (other / path.name).write_text("\n".join(lines[:-1] if short else lines) + "\n")
    assert evaluate(run, "--out", tmp_path / "out", "--epic", other) == 2
    assert "no row is this segment; give the annotation files" in capsys.readouterr().err


def test_one_label_set_is_no_kitchen(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    assert evaluate(run, "--epic", tmp_path, "--out", tmp_path / "out") == 2
    assert "--epic needs the label sets verb and noun; the run has label" in capsys.readouterr().err
