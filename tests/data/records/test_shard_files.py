"""Which record lies in which shard file."""

import json

import pytest

from avt_jax.data import records
from avt_jax.data.records import shards
from avt_jax.errors import UserError


def test_every_record_is_located(clean):
    for split in ("train", "val"):
        for index, record in enumerate(records.open_split(clean, split)):
            name, position = shards.locate(clean, split, index)
            reader = shards.ShardReader(clean / name, records.read_info(clean))
            assert reader.read(position)["id"] == record["id"]
    for split, index in (("train", 9), ("train", -1), ("test", 0)):
        with pytest.raises(UserError, match=f"no record {index}"):
            shards.locate(clean, split, index)


def test_description_that_names_files_elsewhere(folder):
    path = folder / "dataset_info.json"
    content = json.loads(path.read_text())
    content["splits"][0]["filepathTemplate"] = "../{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="outside of its folder"):
        shards.list_shards(folder)
