"""Several splits that are read as one: config.data.train_split=train+val."""

import json
import pickle

import pytest
from doctor_shards import clip, good, write

import avt_jax
from avt_jax.data import records
from avt_jax.data.records.shards import list_shards, locate
from avt_jax.errors import UserError


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    made = good() | {"test": [clip(900 + i, i % 2) for i in range(4)]}
    return write(tmp_path_factory.mktemp("joined") / "shards", made, ("cat", "dog"))


def test_one_after_another(shards):
    parts = {name: records.open_split(shards, name) for name in ("train", "val")}
    one, two = (len(part) for part in parts.values())
    both = pickle.loads(pickle.dumps(records.open_split(shards, "val+train")))
    assert len(both) == one + two == records.read_info(shards).num_clips("val+train")
    ids = [both[i]["id"] for i in range(len(both))]
    assert ids == [
        part[i]["id"] for part in (parts["val"], parts["train"]) for i in range(len(part))
    ]
    # Files by name, for messages about damaged records.
    assert locate(shards, "val+train", two) == locate(shards, "train", 0)
    assert locate(shards, "val+train", two - 1) == locate(shards, "val", two - 1)
    with pytest.raises(UserError, match="has no record"):
        locate(shards, "val+train", one + two)
    assert sum(shard.num_records for shard in list_shards(shards)) == one + two + 4


@pytest.mark.parametrize(
    ("split", "words"),
    [("train+vall", "has no split 'vall' .did you mean 'val'"), ("val+val", "names one twice")],
)
def test_mistakes(shards, split, words):
    with pytest.raises(UserError, match=words):
        records.open_split(shards, split)


def test_a_training_on_both_and_its_evaluation(shards, tmp_path, capsys):
    given = {
        "data": {"path": str(shards), "train_split": "train+val", "eval_split": "test"},
        "train": {"steps": 1},
        "model.modalities": "audio",
    }
    run = tmp_path / "run"
    avt_jax.train(avt_jax.load_config("quickstart:smoke", given), run, say=print)
    out, err = capsys.readouterr()
    total = records.read_info(shards).num_clips("train+val")
    assert f"{total} training clips and 4 validation clips" in out
    assert "train_split_missing" not in err and "the config reads the split" not in err
    found = avt_jax.evaluate(run, split="test")
    results = json.loads((run / "evaluation-test" / "results.json").read_text())
    assert 0 <= results["label"]["train_top1"] <= 1 and found.top1.keys() == {"label"}
