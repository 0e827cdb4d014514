"""EPIC-Kitchens-100's challenge: its files, its accuracies by part, its submissions."""

import json
import zipfile

import numpy as np
import pytest

from avt_jax.errors import UserError
from avt_jax.evaluation import intervals
from avt_jax.evaluation.classification import evaluate
from avt_jax.evaluation.clips import Keeper
from avt_jax.evaluation.epic import annotations, breakdown, submission

SETS = {"verb": tuple(f"v{i}" for i in range(8)), "noun": tuple(f"n{i}" for i in range(12))}
UNSEEN, TAIL_VERBS, TAIL_NOUNS = ("P02",), (1, 3), (0, 5, 7)
COLUMNS = "narration_id,participant_id,video_id,narration,start_timestamp,stop_timestamp"


def write_files(folder, rows, *, split="val", labels=True, unseen=UNSEEN):
    """Files as the authors write them, of (narration, video, start, stop, verb, noun)."""
    lines = [COLUMNS + (",verb,verb_class,noun,noun_class" if labels else "")]
    for name, video, start, stop, verb, noun in rows:
        head = f'{name},{video[:3]},{video},"cut, slowly",00:00:{start:06.3f},00:00:{stop:06.3f}'
        lines.append(head + (f",cut,{verb},bread,{noun}" if labels else ""))
    (folder / annotations.SEGMENT_FILES[split]).write_text("\n".join(lines) + "\n")
    name = annotations.UNSEEN_FILES.get(split, "none.csv")
    (folder / name).write_text("\n".join(["participant_id", *unseen]) + "\n")
    for name, tail in (("verb", TAIL_VERBS), ("noun", TAIL_NOUNS)):
        text = "\n".join([name, *map(str, tail)]) + "\n"
        (folder / annotations.TAIL_FILES[name]).write_text(text)
    return folder


def made(seed=0, count=60):
    """(rows of a segment file, {set: scores with ties}, {set: labels}, names of the clips)."""
    rng = np.random.default_rng(seed)
    labels = {name: rng.integers(len(classes), size=count) for name, classes in SETS.items()}
    scores = {}
    for name, classes in SETS.items():
        p_by = np.round(rng.random((count, len(classes))) + 0.4 * np.eye(len(classes))[
            labels[name]], 1)  # fmt: skip
        scores[name] = (p_by / 4).astype(np.float32)  # ties; products are exact in float64
    rows = [
        (
            f"P0{i % 3 + 1}_10{i % 5}_{i}",
            f"P0{i % 3 + 1}_10{i % 5}",
            i / 4,
            i / 4 + 1,
            labels["verb"][i],
            labels["noun"][i],
        )  # fmt: skip
        for i in range(count)
    ]
    names = [
        {
            "id": str(i),
            "source": f"{video[:3]}/videos/{video}.MP4",
            "start_sec": start,
            "end_sec": stop,
        }  # fmt: skip
        for i, (_, video, start, stop, *_) in enumerate(rows)
    ]
    return rows, scores, labels, names


def predicted(scores, labels, groups, *, processes=1):
    """As an evaluation keeps them, of parts that are padded and of several processes."""
    count, shares, keepers = len(groups), [], []
    for index in range(processes):
        mine = np.arange(index, count, processes)
        keepers.append(Keeper(all_classes=True))
        for part in np.array_split(mine, 3):
            keepers[-1].add(
                {k: v[part] for k, v in scores.items()},
                {k: v[part] for k, v in labels.items()},
                groups[part],
            )
    if processes == 1:
        return keepers[0].gather(SETS, count=count)
    for index, keeper in enumerate(keepers):
        asked = []
        keeper.gather(SETS, count=count, index=index, processes=processes,
                      total=lambda x, asked=asked: asked.append(x) or x)  # fmt: skip
        shares.append(asked)
    sums = [sum(parts) for parts in zip(*shares, strict=True)]
    return keepers[0].gather(SETS, count=count, processes=processes, total=lambda x: sums.pop(0))


def brute_force(scores, labels, rows, k, task):
    """Share of some clips whose class, or pair of classes, is among the k best of all."""
    hits = []
    for i in rows:
        if task == "action":
            products = np.multiply.outer(*(scores[s][i].astype(np.float64) for s in SETS)).ravel()
            true = labels["verb"][i] * len(SETS["noun"]) + labels["noun"][i]
        else:
            products, true = scores[task][i], labels[task][i]
        order = sorted(range(len(products)), key=lambda c: (-products[c], c))
        hits.append(true in order[:k])
    return np.mean(hits)


@pytest.mark.parametrize(("seed", "processes"), [(0, 1), (1, 3)])
def test_accuracies_by_part_equal_brute_force(tmp_path, seed, processes):
    rows, scores, labels, names = made(seed)
    known = annotations.read_annotations(write_files(tmp_path, rows), "val")
    pairs = list(zip(labels["verb"].tolist(), labels["noun"].tolist(), strict=True))
    segments = annotations.find_segments(known, names, pairs)
    assert [one.narration_id for one in segments] == [row[0] for row in rows]
    annotations.check_labels(known, segments, pairs)
    groups = np.unique([row[1] for row in rows], return_inverse=True)[1]
    kept = predicted(scores, labels, groups, processes=processes)
    found = breakdown.break_down(kept, segments, known, groups)
    everyone, tail_v, tail_n = range(len(rows)), set(TAIL_VERBS), set(TAIL_NOUNS)
    is_verb = [i for i in everyone if labels["verb"][i] in tail_v]
    is_noun = [i for i in everyone if labels["noun"][i] in tail_n]
    tail = {"verb": is_verb, "noun": is_noun, "action": sorted({*is_verb, *is_noun})}
    parts = {breakdown.OVERALL: everyone, breakdown.UNSEEN: [i for i in everyone if i % 3 == 1]}
    parts |= {f"P0{who + 1}": [i for i in everyone if i % 3 == who] for who in range(3)}
    assert list(found) == [breakdown.OVERALL, breakdown.UNSEEN, breakdown.TAIL, *list(parts)[2:]]
    for part, tasks in found.items():
        for task, one in tasks.items():
            chosen = tail[task] if part == breakdown.TAIL else parts[part]
            assert one.count == len(chosen)
            for k in (1, 5):
                wanted = brute_force(scores, labels, chosen, k, task)
                assert one.top[k].value == pytest.approx(wanted), (part, task, k)
                assert one.top[k].low <= one.top[k].value <= one.top[k].high
                assert one.top[k].groups == len({rows[i][1] for i in chosen})
    # What the evaluation itself counts, of batches with padding, is the same.
    batch = {"labels": labels, "valid": np.ones(60, bool), "index": np.arange(60)}
    batch["valid"][-7:] = False
    reports = evaluate(lambda b: {k: v[b["index"]] for k, v in scores.items()}, [batch], SETS)
    for task in breakdown.TASKS:
        for k in (1, 5):
            wanted = brute_force(scores, labels, range(53), k, task)
            assert reports[task][f"top{k}"] == pytest.approx(wanted)


def test_table_and_files(tmp_path):
    rows, scores, labels, names = made()
    known = annotations.read_annotations(write_files(tmp_path, rows), "val")
    segments = annotations.find_segments(known, names, [(0, 0)] * 60)
    groups = np.arange(60)
    found = breakdown.break_down(predicted(scores, labels, groups), segments, known, groups)
    told = breakdown.to_dict(found)
    assert told["unseen participants"]["action"].keys() == {
        "count", "top1", "top5", "top1_interval", "top5_interval"
    }  # fmt: skip
    breakdown.write(tmp_path / "epic.csv", found)
    lines = (tmp_path / "epic.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 6 and lines[1].startswith("overall,verb,60,")
    assert breakdown.table("t", found).row_count == 18
    # Without unseen participants among the clips, and with no list at all, there is no such part.
    nobody = annotations.read_annotations(write_files(tmp_path, rows, unseen=["P9"]), "val")
    kept = predicted(scores, labels, groups)
    assert breakdown.UNSEEN not in breakdown.break_down(kept, segments, nobody, groups)
    nobody = annotations.read_annotations(write_files(tmp_path, rows, split="train"), "train")
    assert nobody.unseen is None


def test_clips_are_found_by_span_by_name_and_by_class(tmp_path):
    rows = [
        ("P01_1_0", "P01_1", 1.0, 2.0, 1, 1), ("P01_1_1", "P01_1", 1.0, 2.0, 2, 3),
        ("P01_1_2", "P01_1", 1.0, 4.0, 2, 3), ("P01_1_3", "P01_1", 9.0, 9.5, 0, 0),
    ]  # fmt: skip
    known = annotations.read_annotations(write_files(tmp_path, rows), "val")
    assert known.count == 4

    def find(*clips):
        names = [
            {"id": "x", "source": source, "start_sec": start, "end_sec": stop}
            for source, start, stop, _ in clips
        ]
        found = annotations.find_segments(known, names, [clip[3] for clip in clips])
        return [one.narration_id[-1] for one in found]

    video = "P01/videos/P01_1.MP4"
    spans = [(video, 1.0, 4.02, (0, 0)), (video, 1.0, 2.0, (2, 3)), (video, 1.0, 2.0, (1, 1))]
    assert find(*spans) == ["2", "1", "0"]
    assert find(("cut/P01_1_3.mp4", 0.0, 0.5, (0, 0))) == ["3"]
    for clip in ((video, 1.5, 2.0, (1, 1)), ("P01_2.MP4", 1.0, 2.0, (1, 1))):
        with pytest.raises(UserError, match=r"clip x is not in .*no row is this segment; give"):
            find(clip)
    with pytest.raises(UserError, match="another clip has it already"):
        find(("P01_1_3.mp4", 0, 1, (0, 0)), ("P01_1_3.mp4", 0, 1, (0, 0)))
    segments = annotations.find_segments(
        known, [{"id": "x", "source": "P01_1_3.mp4", "start_sec": 0, "end_sec": 1}], [(5, 6)]
    )
    with pytest.raises(UserError, match="P01_1_3 has verb 0 and noun 0 in .*, and 5 and 6"):
        annotations.check_labels(known, segments, [(5, 6)])


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("EPIC_100_tail_verbs.csv", "id\n1\n", "has no column 'verb'"),
        ("EPIC_100_tail_verbs.csv", "verb\ncut\n", "line 2: verb 'cut' is no class index"),
        ("EPIC_100_tail_nouns.csv", None, "does not exist"),
        ("EPIC_100_unseen_participant_ids_validation.csv", "", "is empty"),
        ("EPIC_100_validation.csv", COLUMNS + "\na,P01,P01_1,x,soon,00:00:01\n", "line 2: "),
        (
            "EPIC_100_validation.csv",
            COLUMNS + "\n" + 2 * "a,P01,P01_1,x,00:00:01,00:00:02\n",
            "line 3: narration_id 'a' stands there twice",
        ),
    ],
)
def test_files_that_do_not_read(tmp_path, file, text, message):
    write_files(tmp_path, made()[0])
    (tmp_path / file).unlink()
    if text is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=message):
        annotations.read_annotations(tmp_path, "val")


def full(count=3):
    rng = np.random.default_rng(0)
    return [rng.dirichlet(np.ones(n), count).astype(np.float32) for n in (97, 300)]


@pytest.mark.parametrize("name", ["a.json", "a.zip"])
def test_a_submission_by_hand(tmp_path, name, monkeypatch):
    monkeypatch.setattr(submission, "_AT_ONCE", 2)  # two parts
    verb, noun = full()
    verb[1], noun[1] = 0, 0
    verb[1, 4], verb[1, 9] = 0.75, 0.25
    noun[1, 7], noun[1, 3] = 0.5, 0.5
    submission.write(tmp_path / name, ["P01_1_0", "P01_1_1", "P02_1_0"], verb, noun, (2, 3, 4))
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name) as folder:
            assert folder.namelist() == ["test.json"]
            text = folder.read("test.json").decode()
    else:
        text = (tmp_path / name).read_text()
    found = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    results = found.pop("results")
    assert found == {
        "version": "0.2", "challenge": "action_recognition", "sls_pt": 2, "sls_tl": 3, "sls_td": 4
    }  # fmt: skip
    assert list(results) == ["P01_1_0", "P01_1_1", "P02_1_0"]
    one = results["P01_1_1"]
    assert list(one) == ["verb", "noun", "action"]
    assert list(one["verb"]) == [str(i) for i in range(97)]
    assert list(one["noun"]) == [str(i) for i in range(300)]
    assert one["verb"]["4"] == pytest.approx(np.log(0.75)) and one["verb"]["0"] < -80
    # Products 3/8, 3/8, 1/8, 1/8: of equal ones the lower pair comes first.
    assert len(one["action"]) == 100
    assert list(one["action"].items())[:4] == [
        (pair, pytest.approx(np.log(p)))
        for pair, p in [("4,3", 3 / 8), ("4,7", 3 / 8), ("9,3", 1 / 8), ("9,7", 1 / 8)]
    ]
    # The best 100 of all 29,100 pairs, best first.
    products = np.multiply.outer(verb[0].astype(float), noun[0].astype(float)).ravel()
    order = np.argsort(-products, kind="stable")[:100]
    wanted = [f"{pair // 300},{pair % 300}" for pair in order]
    assert list(results["P01_1_0"]["action"]) == wanted
    # A softmax of the scores gives the probabilities again.
    scores = np.exp(list(results["P02_1_0"]["verb"].values()))
    np.testing.assert_allclose(scores / scores.sum(), verb[2], rtol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_submissions_that_are_refused(tmp_path):
    verb, noun = full()
    ids = ["a", "b", "c"]
    path = tmp_path / "a.json"
    path.write_text("old")
    broken = noun.copy()
    broken[0, 0] = np.nan
    for message, words in {
        "97 classes of verb, the run has 5": (path, ids, verb[:, :5], noun, (0, 0, 0)),
        "probability of noun is not finite": (path, ids, verb, broken, (0, 0, 0)),
        "two clips are the same segment": (path, ["a", "a", "b"], verb, noun, (0, 0, 0)),
        "--sls 0 0 6: give three levels": (path, ids, verb, noun, (0, 0, 6)),
        "ends in .json or .zip": (tmp_path / "a.txt", ids, verb, noun, (0, 0, 0)),
        "folder does not exist": (tmp_path / "b" / "a.json", ids, verb, noun, (0, 0, 0)),
    }.items():
        with pytest.raises(UserError, match=message):
            submission.write(*words)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_the_interval_of_a_mean_over_classes_equals_brute_force():
    rng = np.random.default_rng(0)
    label_n, group_n = (
        rng.choice([0, 2, 5], p=[0.8, 0.15, 0.05], size=50),
        rng.integers(12, size=50),
    )
    right_n = rng.random(50) < 0.6
    found = intervals.class_mean_interval(right_n, label_n, group_n)
    number = group_n.max() + 1
    assert len(np.unique(group_n)) == number == found.groups
    weights = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), 2000)
    means = []
    for weight_g in weights:
        rows = np.repeat(np.arange(50), weight_g[group_n])
        means.append(np.mean([right_n[rows][label_n[rows] == y].mean()
                              for y in np.unique(label_n[rows])]))  # fmt: skip
    assert found.value == pytest.approx(np.mean([right_n[label_n == y].mean() for y in (0, 2, 5)]))
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]))
    alone = intervals.class_mean_interval(right_n, label_n, np.zeros(50))
    assert (alone.low, alone.high) == (0, 1)
