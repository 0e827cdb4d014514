"""Records with several classes; folders without such sets stay as they were."""

import json

import numpy as np
import pytest
from small_shards import clip, found_in, write

from avt_jax.data import records
from avt_jax.data.doctor.facts import read_facts
from avt_jax.data.records.from_arrays import check_labels, record_from_arrays
from avt_jax.data.records.generated import open_generated
from avt_jax.data.records.labels import class_indices, named
from avt_jax.data.shard_tools import contact_sheet, rewrite, summary
from avt_jax.errors import UserError

LABELS = [(0, 2), (), (1,), (0, 1, 2)]


def several(folder, labels=LABELS, **options):
    made = [clip(i, labels={"label": label}) for i, label in enumerate(labels)]
    return write(folder, made, multi_label=("label",), **options)


def test_labels_come_back_as_they_were_written(tmp_path):
    folder = several(tmp_path / "a")
    info = records.read_info(folder)
    assert info.multi_label == ("label",) and info.schema_version == "2.0.0"
    source = records.open_split(folder, "train")
    assert [class_indices(record["labels"]["label"]) for record in source] == LABELS
    hot = source[3]["labels"]["label"]
    assert hot.dtype == np.uint8 and hot.tolist() == [1, 1, 1]
    assert not found_in(folder)
    counts = summary.summarize(folder).splits["train"].class_counts["label"]
    assert counts == {0: 2, 1: 2, 2: 2}
    assert [facts.labels["label"] for facts in read_facts(folder).clips] == LABELS
    assert contact_sheet.choose_clips(source, 2)


def test_folders_without_such_sets_keep_their_description(tmp_path):
    folder = write(tmp_path / "a", [clip(0)])
    metadata = json.loads((folder / "metadata.json").read_text())
    assert "multi_label" not in metadata and metadata["schema_version"] == "1.1.0"
    assert records.read_info(folder).multi_label == ()


def test_merging_renumbers_and_wants_the_same_kind(tmp_path):
    one = several(tmp_path / "one")
    two = several(tmp_path / "two", classes=("c", "d", "a"))
    both = tmp_path / "both"
    rewrite.merge(both, [one, two], union_classes=True, prefix_ids=True)
    info = records.read_info(both)
    assert info.label_sets["label"] == ("a", "b", "c", "d") and info.multi_label == ("label",)
    found = [class_indices(r["labels"]["label"]) for r in records.open_split(both, "train")]
    assert found == [*LABELS, (0, 2), (), (3,), (0, 2, 3)]
    single = write(tmp_path / "single", [clip(0)])
    with pytest.raises(UserError, match="multi-label in one of"):
        rewrite.merge(tmp_path / "no", [one, single])


@pytest.mark.parametrize("multi_label", [["other"], "label", 3])
def test_a_tampered_description_is_refused(tmp_path, multi_label):
    folder = write(tmp_path / "a", [clip(0)])
    path = folder / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "multi_label": multi_label}))
    with pytest.raises(UserError, match="metadata"):
        records.read_info(folder)


def test_generated_and_own_records(tmp_path):
    info, made = open_generated("generated:20:label=5+,place=3", "train")
    assert info.multi_label == ("label",)
    hot = np.stack([record["labels"]["label"] for record in made])
    assert hot.shape == (20, 5) and len(np.unique(hot.sum(1))) > 2
    assert named(np.array([1, 0, 1]), "abc") == "a | c" and named(1, "abc") == "b"
    assert named((), "abc") == "none"


def test_records_from_arrays():
    options = dict(frame_rate_hz=1, id="x")
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    made = record_from_arrays(frames, labels={"label": np.array([0, 1, 1])}, **options)
    assert class_indices(made["labels"]["label"]) == (1, 2)
    for wrong in (np.array([0, 2]), np.array(["a"]), [0, 1]):
        with pytest.raises(UserError, match="'label' is .*; give a NumPy array of 0 and 1"):
            record_from_arrays(frames, labels={"label": wrong}, **options)
    check_labels(made["labels"], "they", {"label": 3}, ("label",))
    with pytest.raises(UserError, match="a number for each of the 4 classes"):
        check_labels(made["labels"], "they", {"label": 4}, ("label",))
    with pytest.raises(UserError, match="give a class index"):
        check_labels(made["labels"], "they", {"label": 3})
