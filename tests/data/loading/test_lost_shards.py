"""A shard that goes away under a training is no damaged record: it is named, and all stops."""

import pytest
import small_shards

from avt_jax.data.loading import damaged
from avt_jax.data.records import open_split
from avt_jax.data.records.source import LostShard
from avt_jax.errors import UserError


def _remove(shard):
    shard.unlink()


def _cut(shard):
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size // 2)


def _empty(shard):
    with shard.open("r+b") as file:
        file.truncate(0)


@pytest.mark.parametrize("lose", [_remove, _cut, _empty])
def test_a_lost_shard_is_named(tmp_path, lose):
    folder = small_shards.write(tmp_path / "shards", [small_shards.clip(i) for i in range(10)])
    shard = small_shards.train_shards(folder)[1]
    source = open_split(folder, "train")
    lose(shard)
    lost = []
    for index in range(len(source)):
        try:
            damaged.make_usable_example(
                dict, source, index, split="train", path=str(folder), max_damaged=10
            )
        except LostShard as error:
            lost.append((index, str(error)))
    assert all(f"shard {shard} can no longer be read (" in text for _, text in lost)
    assert [index for index, _ in lost] == [3, 4, 5]


def test_a_damaged_record_is_not_a_lost_shard(tmp_path):
    folder = small_shards.write(tmp_path / "shards", [small_shards.clip(i) for i in range(10)])
    small_shards.flip(small_shards.train_shards(folder)[0], small_shards.IN_RECORD_0)
    source = open_split(folder, "train")
    with pytest.raises(UserError, match="clip 0 of split 'train' .* is damaged") as caught:
        source[0]
    assert not isinstance(caught.value, LostShard)
