import json
import re

import numpy as np
import pytest
from rich.console import Console

from avt_jax.evaluation import classification, report
from avt_jax.evaluation.report import Evaluation


@pytest.fixture
def evaluation(rng):
    labels = {"verb": rng.integers(3, size=30), "noun": rng.integers(4, size=30)}
    sets = {"verb": ("cut", "[red]open", "wash"), "noun": ("a", "b", "c,d", "never seen")}
    labels["noun"] %= 3
    p = {name: rng.dirichlet(np.ones(len(names)), 30) for name, names in sets.items()}
    batch = {"labels": labels, "valid": np.ones(30, bool)}
    found = classification.evaluate(lambda _: p, [batch], sets)
    about = {"run": "runs/x", "step": 7, "split": "test"}
    return Evaluation(about, found, {"audio": found, "video": found})


def rendered(table):
    console = Console(width=140, file=None, record=True, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_results_json_and_confusion_csv(evaluation, tmp_path):
    written = report.write_results(evaluation, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in written)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["verb"]["top1"] == evaluation.reports["verb"]["top1"]
    assert found["verb"]["audio_silenced"]["top5"] == 1.0
    assert found["noun"]["classes"][3] == {"name": "never seen", "accuracy": None, "count": 0}
    assert set(found["action"]) == {"top1", "top5", "count", "audio_silenced", "video_silenced"}
    assert found["evaluated-on"]["step"] == 7
    lines = (tmp_path / "confusion_noun.csv").read_text().splitlines()
    assert lines[0] == 'true \\ predicted,a,b,"c,d",never seen'
    counts = [list(map(int, line.rsplit(",", 4)[1:])) for line in lines[1:]]
    np.testing.assert_array_equal(counts, evaluation.reports["noun"]["confusion"])


def test_tables_show_names_as_they_are(evaluation):
    text = rendered(report.accuracy_table(evaluation))
    assert "top-1, no audio" in text and "action" in text and "runs/x, step 7" in text
    text = rendered(report.class_table("verb", evaluation.reports["verb"]))
    assert "[red]open" in text


def test_class_table_starts_with_the_worst_and_is_cut():
    confusion = np.diag(np.arange(30)) + np.eye(30, k=1, dtype=int)
    classes = [
        {"name": f"class {i:02}", "accuracy": i / 100, "count": 1 + i} for i in range(29, -1, -1)
    ]
    text = rendered(report.class_table("label", {"classes": classes, "confusion": confusion}))
    assert "the 20 worst of 30" in text
    rows = [line[2:10] for line in text.splitlines() if re.match(r"  class \d", line)]
    assert rows == [f"class {i:02}" for i in range(20)]
    assert "class 18 (1 x)" in text  # what class 19 is taken for


@pytest.mark.parametrize(
    ("data", "clause"),
    [
        ({"label": ("a", "b")}, None),
        ({"label": ("a", "x")}, "class 1 of 'label' is 'b' in the run and 'x' in the data"),
        ({"label": ("a",)}, "'label' has 2 classes in the run and 1 in the data"),
        ({"verb": ("a", "b")}, "the data have no label set 'label', the run has"),
        (
            {"label": ("a", "b"), "noun": ("c",)},
            "the run has no label set 'noun', the data have",
        ),
    ],
)
def test_first_class_difference(data, clause):
    assert report.first_class_difference({"label": ("a", "b")}, data) == clause
