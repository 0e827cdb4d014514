import json
import re

import pytest
import simplejpeg
from clip_records import noise_record
from small_shards import write

from avt_jax.cli import main as cli


def grey(index, label):
    """A clip whose class is told by how bright it is, and its sound tells nothing."""
    image = noise_record(index, num_frames=1, duration_sec=0.1)
    frame = simplejpeg.decode_jpeg(image["frames"][0]) // 8 + 80 * label
    made = noise_record(index, num_frames=2, duration_sec=0.5)
    return made | {
        "frames": [simplejpeg.encode_jpeg(frame)] * 2,
        "labels": {"label": label},
        "source": f"{index // 2}__{index % 2}.mp4",
    }


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    made = {
        "train": [grey(i, i // 2 % 3) for i in range(36)],
        "test": [grey(i, i // 2 % 3) for i in range(100, 124)],
    }
    return write(tmp_path_factory.mktemp("baseline") / "shards", made)


def test_it_sees_what_is_there_to_see(shards, capsys):
    assert cli.main(["baseline", str(shards), "--group-by", "(.+)__", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["label"]
    assert found["video alone"]["value"] >= 0.9 > found["audio alone"]["value"]
    assert found["video alone"]["groups"] == 12
    assert found["majority"] == pytest.approx(1 / 3)


def test_table_and_mistakes(shards, capsys):
    assert cli.main(["baseline", str(shards)]) == 0
    out = capsys.readouterr().out
    assert "split test, 24 clips, fitted to 36" in out and "24 sources" in out
    assert re.search(r"always the largest class +33\.3 %", out)
    assert cli.main(["baseline", str(shards), "--split", "tset"]) == 2
    assert "has no split 'tset' (did you mean 'test'?)" in capsys.readouterr().err
