import csv
import json
import shutil

import jax
import numpy as np
import pytest
from tiny_run import make_run, tiny_run_fixture  # noqa: F401

from avt_jax.cli import main as cli
from avt_jax.training.checkpoint import Checkpointer, load_run
from avt_jax.training.state import TrainState


def evaluate(run, *words):
    return cli.main(["evaluate", "--checkpoint", str(run), *map(str, words)])


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of the tiny run that may be written to."""
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_numbers_pictures_and_table(run, tmp_path, capsys):
    lines = [{"step": i, "split": "train", "loss": 1 / i, "top1/label": 0.1} for i in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert evaluate(run) == 0
    out, err = capsys.readouterr()
    folder = run / "evaluation-test"
    assert sorted(path.name for path in folder.iterdir()) == [
        "clips.csv",
        "confusion_label.csv",
        "confusion_label.png",
        "results.json",
        "training_curves.png",
    ]
    results = json.loads((folder / "results.json").read_text())
    assert results["evaluated-on"]["split"] == "test" and results["evaluated-on"]["step"] == 3
    label = results["label"]
    assert label["count"] == 10 and 0 <= label["top1"] <= label["top5"] <= 1
    assert label["audio_silenced"].keys() == label["video_silenced"].keys() == {"top1", "top5"}
    assert sum(entry["count"] for entry in label["classes"]) == 10
    assert f"{100 * label['top1']:.1f} %" in out and "evaluated 10 clips" in err
    low, high = label["top1_interval"]
    assert low <= label["top1"] <= high and label["sources"] == 5
    assert label["chance"] == 1 / 16 and 0 <= label["train_top1"] <= 1
    assert "baseline (avt baseline)" in out and "95 % interval, 5 sources" in out
    assert out.splitlines()[-1].startswith("label: the model is not shown to be better than one")
    with open(folder / "clips.csv", newline="") as file:
        clips = list(csv.DictReader(file))
    right = [clip["label"] == clip["label_predicted"] for clip in clips]
    assert right == [clip["label_right"] == "True" for clip in clips]
    assert sum(right) == 10 * label["top1"]

    # Another batch size, and so other padding, changes nothing; neither does the run's folder.
    (run / "metrics.jsonl").unlink()
    words = ["--batch-size", 3, "--out", tmp_path / "out", "--table", "parquet"]
    assert evaluate(run, *words, "--group-by", ".") == 0
    again = json.loads((tmp_path / "out" / "results.json").read_text())["label"]
    # Every source is of the same group: nothing is known of others.
    assert again.pop("sources") == 1 and again.pop("top1_interval") == [0.0, 1.0]
    again = {name: value for name, value in again.items() if not name.endswith("interval")}
    assert again == {name: label[name] for name in again}
    assert (tmp_path / "out" / "clips.parquet").exists()
    assert not (tmp_path / "out" / "training_curves.png").exists()


def test_several_views_count_each_clip_once(run, tmp_path):
    assert evaluate(run, "--out", tmp_path / "one") == 0
    assert evaluate(run, "--clips", 3, "--crops", 2, "--out", tmp_path / "six") == 0
    one, six = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "six")
    )
    assert (one["evaluated-on"]["clips"], one["evaluated-on"]["crops"]) == (1, 1)
    assert (six["evaluated-on"]["clips"], six["evaluated-on"]["crops"]) == (3, 2)
    assert six["label"]["count"] == one["label"]["count"] == 10
    assert [c["count"] for c in six["label"]["classes"]] == [
        c["count"] for c in one["label"]["classes"]
    ]


def test_one_modality_has_nothing_to_silence(tmp_path, capsys):
    run = make_run(tmp_path / "run", ["--config.model.modalities=video"])
    assert evaluate(run, "--split", "val") == 0
    results = json.loads((run / "evaluation-val" / "results.json").read_text())
    assert not any("silenced" in key for key in results["label"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "generated:4:label=9"], "'label' has 16 classes in the run and 9 in the data"),
        (["--data", "generated:4:verb=16"], "the data have no label set 'label', the run has"),
        (["--data", "nowhere"], "no shard folder at nowhere"),
        (["--group-by", "("], "--group-by '(' is no regular expression"),
        (["--group-by", "nothing such"], "is not found in 10 of 10 paths, such as"),
        (["--batch-size", "0"], "--batch-size 0: give 1 or more"),
        (["--clips", "0"], "--clips 0: give 1 or more"),
    ],
)
def test_mistakes_are_one_sentence(run, capsys, words, message):
    assert evaluate(run, *words) == 2
    err = capsys.readouterr().err
    assert err.startswith("avt: error: ") and message in err and err.count("\n") == 1
    assert not (run / "evaluation-test").exists()


def test_out_is_checked_before_the_work(run, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert evaluate(run, "--out", tmp_path / "file") == 2
    assert "File exists; give another folder" in capsys.readouterr().err


def test_the_checkpoint_of_a_step(run, tmp_path, capsys):
    assert evaluate(run, "--step", 3, "--out", tmp_path / "out", "--no-baseline") == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["evaluated-on"]["step"] == 3
    assert evaluate(run, "--step", 4) == 2
    assert "has no checkpoint of step 4; it has 3" in capsys.readouterr().err
    for bad in ("-1", "newest", "²"):
        with pytest.raises(SystemExit):
            evaluate(run, f"--step={bad}")
        assert "is neither best nor last nor a step" in capsys.readouterr().err


def test_raw_weights_beside_the_averaged_ones(run, capsys):
    # Averaged weights of zero give every class the same probability, so the first one is said.
    trained = load_run(run)
    params = trained.params
    average = jax.tree.map(np.zeros_like, params)
    state = TrainState(np.int32(5), params, trained.stats, average, {})
    checkpointer = Checkpointer(run, keep_last=1, keep_best=1)
    checkpointer.save(jax.tree.map(jax.numpy.asarray, state), {}, score=0.9)
    checkpointer.close()

    def judged(*words):
        assert evaluate(run, "--no-baseline", *words) == 0
        folder = run / f"evaluation-test{'-raw' if words else ''}"
        with open(folder / "clips.csv", newline="") as file:
            said = {clip["label_predicted"] for clip in csv.DictReader(file)}
        return json.loads((folder / "results.json").read_text())["evaluated-on"], said

    about, said = judged()
    out, err = capsys.readouterr()
    assert about["weights"] == "averaged" and len(said) == 1
    assert "the averaged weights; --weights averaged|raw takes either" in err
    assert "raw weights" not in out
    about, said = judged("--weights", "raw")
    assert about["weights"] == "raw" and len(said) > 1
    # A title may be broken into lines.
    assert "step 5 (raw weights)" in " ".join(capsys.readouterr().out.split())
