"""Cached tokens come back as they were written; what is damaged or something else is refused."""

import json
import pickle

import numpy as np
import pytest
from small_shards import clip, write
from token_shards import token_record, tokens_info, write_tokens

from avt_jax import UserError
from avt_jax.data import records
from avt_jax.data.records.tokens import MAX_VIEWS, parse_tokens
from avt_jax.data.records.writer import make_serializer


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_written_is_read(tmp_path, dtype):
    made = [token_record(i, views=1 + i % 2, dtype=dtype) for i in range(5)]
    folder = write_tokens(tmp_path / "tokens", {"train": made, "val": made[:1]}, dtype=dtype)
    info, tokens = records.read_tokens_info(folder)
    assert tokens == tokens_info(dtype=dtype) and info.splits == {"train": 5, "val": 1}
    source = pickle.loads(pickle.dumps(records.open_tokens(folder, "train")))
    for expected, found in zip(made, source, strict=True):
        assert expected.keys() == found.keys()
        for name in expected:
            np.testing.assert_array_equal(expected[name], found[name], err_msg=name)
        assert found["video_tokens"].dtype == dtype
    assert records.verify_checksums(folder) == 2


def test_multi_label_tokens(tmp_path):
    made = [token_record(i, labels={"label": classes}) for i, classes in enumerate([(0, 2), ()])]
    folder = write_tokens(tmp_path / "tokens", {"train": made}, multi_label=("label",))
    assert records.read_tokens_info(folder)[0].multi_label == ("label",)
    source = records.open_tokens(folder, "train")
    np.testing.assert_array_equal(source[0]["labels"]["label"], [1, 0, 1])
    for index in range(2):
        labels = source.read_labels(index)["label"]
        np.testing.assert_array_equal(labels, source[index]["labels"]["label"])


def test_several_splits_of_tokens_are_read_as_one(tmp_path):
    made = {"train": [token_record(i) for i in range(3)], "val": [token_record(7)]}
    folder = write_tokens(tmp_path / "tokens", made)
    both = pickle.loads(pickle.dumps(records.open_tokens(folder, "train+val")))
    assert [record["id"] for record in both] == ["clip-0", "clip-1", "clip-2", "clip-7"]


def test_clips_and_tokens_are_told_apart(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", {"train": [token_record(0)]})
    clips = write(tmp_path / "clips", [clip(0)])
    for read in (records.read_info, lambda path: records.open_split(path, "train")):
        with pytest.raises(UserError, match="holds cached tokens, no clips.*own:tokens"):
            read(tokens)
    for read in (records.read_tokens_info, lambda path: records.open_tokens(path, "train")):
        with pytest.raises(UserError, match="holds clips, no cached tokens"):
            read(clips)


@pytest.fixture
def described(tmp_path):
    """What a folder says about itself."""
    return records.read_tokens_info(write_tokens(tmp_path / "tokens", {"train": [token_record(0)]}))


def serialized(record, **changes):
    return make_serializer({"label": ("a", "b", "c")}, tokens=tokens_info(**changes))(record)


NAN = np.full((1, 3, 4), np.nan, np.float32)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (token_record(0, video_tokens=NAN), "video tokens are not finite"),
        (token_record(0, video_tokens=np.zeros((2, 3, 4), np.float32)), "have \\[1, 2\\] views"),
        (token_record(0, views=MAX_VIEWS + 2), "have \\[66\\] views"),
        (token_record(0, video_tokens=NAN[:0]), "0 numbers"),
        (token_record(0, end_sec=1.0), "span"),
        (token_record(0, end_sec=np.nan), "span"),
    ],
)
def test_damaged_records(described, record, words):
    assert parse_tokens(serialized(token_record(0)), *described)["id"] == "clip-0"
    with pytest.raises(ValueError, match=words):
        parse_tokens(serialized(record), *described)


def test_bytes_that_are_no_record_or_of_another_shape(described):
    with pytest.raises(ValueError, match="no record"):
        parse_tokens(b"\xff" * 40, *described)
    other = {"video": (3, 4), "audio": (7, 2)}
    with pytest.raises(ValueError, match="14 numbers, not of 5 x 2"):
        parse_tokens(serialized(token_record(0, shapes=other), shapes=other), *described)
    alone = {"video": (3, 4)}
    with pytest.raises(ValueError, match="it has no 'audio_tokens'"):
        parse_tokens(serialized(token_record(0, shapes=alone), shapes=alone), *described)


@pytest.mark.parametrize(
    "change",
    [
        {"shapes": {}},
        {"shapes": {"../x": [1, 2]}},
        {"shapes": {"video": [0, 4]}},
        {"shapes": {"video": [-3, -4]}},
        {"shapes": {"video": [2**40, 2**40]}},
        {"shapes": {"video": 3}},
        {"shapes": [1]},
        {"dtype": "object"},
        {"config": None},
        {"config": {"model": 3, "data": {}}},
        {"config": {"model": {"video_encoder": 5}, "data": {}}},
        {"encoders": 4},
        {"views": "many"},
        None,
    ],
    ids=str,
)
def test_tampered_descriptions(tmp_path, change):
    folder = write_tokens(tmp_path / "tokens", {"train": [token_record(0)]})
    file = folder / "metadata.json"
    said = json.loads(file.read_text())
    said["tokens"] = 5 if change is None else {**said["tokens"], **change}
    file.write_text(json.dumps(said))
    with pytest.raises(UserError, match="not one that 'avt extract' wrote"):
        records.open_tokens(folder, "train")
