"""Classes of unequal size in a training: drawn, weighed, kept with the run, refused."""

import contextlib
import itertools
import json
import shutil

import numpy as np
import pytest

import avt_jax
from avt_jax.axes import LABELS
from avt_jax.data.loading.balance import read_labels
from avt_jax.data.loading.config import DataConfig
from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.class_balance import balanced_weights

SIZES = (15, 4, 1)


def own_records(sizes=SIZES):
    """Clips of noise, each class by itself."""
    rng = np.random.default_rng(0)
    return [
        avt_jax.record_from_arrays(
            rng.integers(0, 256, (4, 40, 40, 3), np.uint8),
            frame_rate_hz=4.0,
            waveform=rng.normal(0, 0.1, 16000),
            labels={"label": label},
            id=f"{label}-{number}",
        )
        for label, size in enumerate(sizes)
        for number in range(size)
    ]


def experiment(changes, *, train=None):
    config = avt_jax.load_config(
        "quickstart:smoke", {"model.modalities": "audio", "train.batch_size": 8, **changes}
    )
    train = own_records() if train is None else train
    data = avt_jax.OwnData({"label": ["many", "few", "one"]}, train)
    return Experiment(config, data=data)


def test_own_clips_are_drawn_class_by_class():
    made = experiment({"data.balance": "label"})
    with contextlib.closing(made.train_batches()) as batches:
        labels = [batch[LABELS]["label"] for batch in itertools.islice(batches, 15)]
    counts = np.bincount(np.concatenate(labels), minlength=3)
    assert counts.sum() == 120 and counts.tolist() == [40, 40, 40]  # six epochs of 20


def test_a_set_that_is_none_is_refused_before_anything_is_written(tmp_path):
    made = experiment({"data.balance": "lable"})
    with pytest.raises(UserError, match=r"config.data.balance is 'lable'.*'label'"):
        avt_jax.train(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_batches_cannot_be_balanced():
    made = experiment({"data.balance": "label"}, train=iter([]))
    with pytest.raises(UserError, match=r"OwnData.train gives batches"):
        made.check_batches()


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    label_n = np.repeat([0, 1, 3], SIZES)
    labels = [{"label": int(label)} for label in label_n]
    found = balanced_weights([*labels, None], "label", 4)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=label_n)
    np.testing.assert_allclose(found[[0, 1, 3]], expected, rtol=1e-6)
    assert found[2] == 1, "a class without clips"


def test_balanced_weights_of_a_multi_label_set():
    records = [{"labels": {"tags": np.array(row, np.uint8)}} for row in ([1, 0], [1, 1], [0, 0])]
    labels = read_labels(records, DataConfig())
    np.testing.assert_allclose(balanced_weights(labels, "tags", 2), [3 / 4, 3 / 2])


def run(folder, changes, *, records=None):
    steps = {"train.steps": 2, "train.log_every_steps": 1, "data.num_threads": 1}
    said = []
    made = experiment(steps | changes, train=records)
    return avt_jax.train(made, folder, say=said.append), said


def test_a_run_that_goes_on_keeps_the_weights_that_it_began_with(tmp_path):
    changes = {"losses.class_weights": "balanced"}
    result, said = run(tmp_path / "run", changes)
    expected = [20 / (3 * size) for size in SIZES]
    saved = json.loads((tmp_path / "run" / "run.json").read_text())["class_weights"]
    np.testing.assert_allclose(saved["label"], expected, rtol=1e-6)
    assert any("the classes of label weigh 0.444 (many) to 6.67 (one)" in line for line in said)
    # Of other clips; what the data are is in no question then.
    _, said = run(tmp_path / "run", changes | {"train.steps": 3}, records=own_records((7, 7, 6)))
    assert any("weigh 0.444 (many) to 6.67 (one)" in line for line in said)
    with pytest.raises(UserError, match=r"losses.class_weights was 'balanced' and is now ''"):
        run(tmp_path / "run", {"train.steps": 4})
    spoilt = shutil.copytree(tmp_path / "run", tmp_path / "spoilt")
    facts = json.loads((spoilt / "run.json").read_text())
    for wrong in ([1.0], ["x", 1, 1], 3, [1.0, -1.0, 1.0]):
        text = json.dumps(facts | {"class_weights": {"label": wrong}})
        (spoilt / "run.json").write_text(text)
        with pytest.raises(UserError, match=r"run.json is damaged: its class_weights"):
            run(spoilt, changes | {"train.steps": 4})


def test_weights_from_a_file(tmp_path):
    file = tmp_path / "weights.csv"
    file.write_text("class;weight\none;4\nmany;0.5\nfew;1\n")
    made = experiment({"losses.class_weights": str(file)})
    assert made.class_weights["label"].tolist() == [0.5, 1, 4]


@pytest.mark.parametrize(
    "text,message",
    [
        ("class,weight\nmany,1\none,1\n", "has no weight for the class 'few' of 'label'"),
        ("class,weight\nmany,1\none,1\nfew,1\nmayn,2\n", "names 'mayn', no class.*'many'"),
        ("class,weight\nmany,1\nmany,1\n", "line 3: 'many' is there twice"),
        ("class,weight\nmany,nan\n", "line 2: the weight is 'nan'"),
        ("class,weight\nmany,-1\n", "line 2: the weight is '-1'"),
        ("class,weight\nmany,0\nfew,0\none,0\n", "no class a weight above 0"),
        ("name,weight\nmany,1\n", "has the columns name, weight; give class and weight"),
        ("", "is empty"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, message):
    file = tmp_path / "weights.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", {"losses.class_weights": str(file)})
    assert not (tmp_path / "run").exists()


def test_a_missing_file_and_batches_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"class_weights: .*none.csv does not exist"):
        run(tmp_path / "run", {"losses.class_weights": str(tmp_path / "none.csv")})
    with pytest.raises(UserError, match=r"OwnData.train gives batches"):
        experiment({"losses.class_weights": "balanced"}, train=iter([])).check_batches()
