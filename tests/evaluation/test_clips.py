import csv

import numpy as np
from pyarrow import parquet

from avt_jax.evaluation.classification import class_ranks
from avt_jax.evaluation.clips import Keeper, rows, write_clips

SETS = {"verb": ("cut", "=open()", "wash"), "noun": tuple("abcdefg")}


def judged(rng, count):
    p = {name: rng.dirichlet(np.ones(len(c)), count).astype("float32") for name, c in SETS.items()}
    labels = {name: rng.integers(len(classes), size=count) for name, classes in SETS.items()}
    return p, labels, rng.integers(5, size=count)


def parts(p, labels, groups, chosen):
    return (
        {name: p_by[chosen] for name, p_by in p.items()},
        {name: label_b[chosen] for name, label_b in labels.items()},
        groups[chosen],
    )


def test_processes_put_their_parts_together_bit_by_bit():
    p, labels, groups = judged(np.random.default_rng(0), 11)
    keepers = [Keeper() for _ in range(3)]
    for index, keeper in enumerate(keepers):
        mine = np.arange(index, 11, 3)
        keeper.add(*parts(p, labels, groups, mine[:2]))
        keeper.add(*parts(p, labels, groups, mine[2:]))
    shares = []
    for index, keeper in enumerate(keepers):
        keeper.gather(
            SETS, count=11, index=index, processes=3, total=lambda x: shares.append(x) or x
        )
    whole = keepers[0].gather(SETS, count=11, processes=3, total=lambda x: sum(shares))
    for name, one in whole.sets.items():
        np.testing.assert_array_equal(one.label_n, labels[name])
        np.testing.assert_array_equal(one.rank_n, class_ranks(p[name], labels[name]))
        np.testing.assert_array_equal(one.true_n, p[name][np.arange(11), labels[name]])
        order = np.argsort(-p[name], axis=1, kind="stable")[:, :5]
        np.testing.assert_array_equal(one.top_nk, order)
        np.testing.assert_array_equal(one.p_nk, np.take_along_axis(p[name], order, 1))
        np.testing.assert_array_equal(one.right_n, p[name].argmax(1) == labels[name])
    both = (p["verb"].argmax(1) == labels["verb"]) & (p["noun"].argmax(1) == labels["noun"])
    np.testing.assert_array_equal(whole.right_n("action"), both)
    np.testing.assert_array_equal(whole.group_n, groups)


def test_the_table_is_safe_in_a_spreadsheet_and_whole_in_parquet(tmp_path):
    p, labels, groups = judged(np.random.default_rng(1), 4)
    labels["verb"][0] = 1
    keeper = Keeper()
    keeper.add(p, labels, groups)
    names = [{"id": f"-{i}.mp4", "start_sec": -1.5} for i in range(4)]
    table = list(rows(keeper.gather(SETS, count=4), SETS, names))
    write_clips(tmp_path / "clips.csv", table)
    write_clips(tmp_path / "clips.parquet", table)
    with open(tmp_path / "clips.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert read[0]["id"] == "'-0.mp4" and read[0]["verb"] == "'=open()"
    assert read[0]["start_sec"] == "-1.5"
    whole = parquet.read_table(tmp_path / "clips.parquet").to_pylist()
    assert whole == table and whole[0]["verb"] == "=open()"
    assert whole[2]["noun_right"] == (p["noun"][2].argmax() == labels["noun"][2])
    first = SETS["noun"][p["noun"][3].argmax()]
    assert whole[3]["noun_top"].startswith(f"{first} {p['noun'][3].max():.4f}; ")
