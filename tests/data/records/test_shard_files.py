"""Which record lies in which shard file."""

import json
import subprocess
import sys

import pytest

from avt_jax.data import records
from avt_jax.data.records import shards
from avt_jax.data.records.description import shard_lengths
from avt_jax.data.records.schema import shard_names
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


@pytest.mark.parametrize(
    "change",
    [
        {"filepathTemplate": "../{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"},
        {"filepathTemplate": "{SPLIT}"},
        {"name": "../../train"},
        {"name": "/train"},
    ],
)
def test_description_that_names_files_elsewhere(folder, change):
    path = folder / "dataset_info.json"
    content = json.loads(path.read_text())
    content["splits"][0] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="outside of its folder"):
        shards.list_shards(folder)
    with pytest.raises(UserError, match="outside of its folder"):
        records.open_split(folder, content["splits"][1]["name"])


@pytest.mark.parametrize("lengths", [None, 3, ["x"], [[]]])
def test_description_without_lengths(folder, lengths):
    path = folder / "dataset_info.json"
    content = json.loads(path.read_text())
    content["splits"][0]["shardLengths"] = lengths
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is damaged"):
        shard_lengths(folder)


def test_names_and_lengths_are_those_that_tfds_reads(clean):
    import tensorflow_datasets as tfds

    infos = tfds.builder_from_directory(clean).info.splits
    for split, lengths in shard_lengths(clean).items():
        assert lengths == infos[split].shard_lengths
        paths = [str(clean / name) for name in shard_names(split, len(lengths))]
        assert paths == [str(path) for path in infos[split].filepaths]
    # As the folder's own names.
    assert len(shard_lengths(clean)) == 2 and max(map(len, shard_lengths(clean).values())) > 1


def test_reading_does_not_wait_for_tfds(clean):
    """Which takes longer to import than all else; each worker process would do it, too."""
    code = (
        "import sys\nfrom avt_jax.data import records\n"
        f"source = records.open_split({str(clean)!r}, 'train')\n"
        "assert len(source[0]['frames']) and len(source.read_lazily(1)['fbank'])\n"
        "assert 'tensorflow_datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
