"""Commands on clips of several classes, and what is said of rows that contradict each other."""

import json
import re

import pytest
from media_files import write_manifest
from small_shards import clip, write
from tiny_run import write_video

from avt_jax.cli import main as cli
from avt_jax.cli.common import run
from avt_jax.cli.data import baseline, extract
from avt_jax.data import records
from avt_jax.data.records.labels import class_indices


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Two videos; the rows give one of them two classes."""
    folder = tmp_path_factory.mktemp("several")
    for name in "ab":
        write_video(folder / f"{name}.mp4", video_sec=0.5, audio_sec=0.5)
    rows = [("a.mp4", "dog"), ("b.mp4", "cat"), ("a.mp4", "cat|fish")]
    return write_manifest(folder / "clips.csv", rows, ("path", "label"))


def test_extract_with_the_option_and_without(manifest, tmp_path, capsys):
    words = ["--manifest", str(manifest), "--workers", "1"]
    assert extract.main([*words, "--out", str(tmp_path / "one")]) == 0
    said = capsys.readouterr().err
    assert "lines 2 and 4 give one clip two classes of the set 'label'" in said
    assert "'cat|fish' is taken for the name of one class" in said
    assert records.read_info(tmp_path / "one").splits == {"train": 3}

    out = tmp_path / "two"
    assert extract.main([*words, "--out", str(out), "--multi-label", "label"]) == 0
    assert "give one clip two classes" not in capsys.readouterr().err
    info = records.read_info(out)
    assert info.multi_label == ("label",) and info.label_sets["label"] == ("cat", "dog", "fish")
    source = records.open_split(out, "train")
    assert [class_indices(r["labels"]["label"]) for r in source] == [(0, 1, 2), (0,)]
    # The same command does nothing; without the option it would make other shards.
    assert extract.main([*words, "--out", str(out), "--multi-label", "label"]) == 0
    assert run(extract.main, [*words, "--out", str(out)]) == 2
    assert run(extract.main, [*words, "--out", str(out), "--multi-label", "lable"]) == 2
    assert "(did you mean 'label'?)" in capsys.readouterr().err


def test_doctor_and_inspect_count_each_class(tmp_path, capsys):
    labels = [(0, 1), (0,), (), *[(0,)] * 20]
    made = [clip(i, labels={"label": one}) for i, one in enumerate(labels)]
    folder = write(tmp_path / "a", made, multi_label=("label",), classes=("a", "b"))
    cli.main(["doctor", str(folder), "--json"])
    found = json.loads(capsys.readouterr().out)["findings"]
    by_check = {finding["check"]: finding for finding in found}
    assert "1 clip(s) have no class" in by_check["clips_without_class"]["what"]
    # 22 to 1, which average precision does not mind.
    assert "imbalance" not in by_check and "few_clips" in by_check
    assert cli.main(["inspect", str(folder)]) == 0
    assert re.search(r"0 +a +22 +22", capsys.readouterr().out)


def test_baseline_of_a_multi_label_set(tmp_path, capsys):
    labels = [[(0, 1), (0,), (), (1,)][i % 4] for i in range(16)]
    made = [clip(i, labels={"label": one}) for i, one in enumerate(labels)]
    folder = write(tmp_path / "a", made, multi_label=("label",), classes=("a", "b", "c"))
    words = [str(folder), "--split", "train"]
    assert run(baseline.main, [*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["label"]
    assert found["chance_mAP"] == 0.5 and "majority" not in found
    for name in ("audio and video", "audio alone", "video alone"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
    assert run(baseline.main, words) == 0
    shown = capsys.readouterr().out
    assert "mAP" in shown and "scores that say nothing" in shown and "0.500" in shown
