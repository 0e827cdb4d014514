"""Mistakes at the door of the Python API: each is one sentence that says what to give."""

import pickle
import re

import jax.numpy as jnp
import numpy as np
import pytest

import avt_jax
from avt_jax.data.loading.damaged import make_usable_example
from avt_jax.experiment.own_batches import checked
from avt_jax.experiment.splits import OwnData, open_splits
from avt_jax.models.inputs import InputSpec

SPEC, CLASSES = InputSpec(4, 32, 100, 128), {"label": 4}
RNG = np.random.default_rng(0)
VIDEO = RNG.integers(0, 256, (6, 4, 32, 32, 3), np.uint8)
AUDIO = RNG.normal(-5, 3, (6, 100, 128)).astype(np.float32)
LABEL = np.arange(6) % 4
RIGHT = {"video": VIDEO, "audio": AUDIO, "labels": {"label": LABEL}}
UNIT = VIDEO.astype(np.float32) / 255


def check(**changes):
    batch = {key: value for key, value in (RIGHT | changes).items() if value is not None}
    return checked(batch, SPEC, CLASSES, 8)


def test_labels_of_several_classes():
    hot = np.eye(4, dtype=bool)[LABEL]
    found = checked(RIGHT | labels(hot), SPEC, CLASSES, 8, ("label",))
    np.testing.assert_array_equal(found["labels"]["label"], hot)
    for wrong in (LABEL, hot[:, :3], hot * 2):
        with pytest.raises(avt_jax.UserError, match="are not 0 and 1 of each class"):
            checked(RIGHT | labels(wrong), SPEC, CLASSES, 8, ("label",))


def labels(label_b):
    return {"labels": {"label": label_b}}


def with_one(array, value):
    array = array.copy()
    array[(3, *(0,) * (array.ndim - 1))] = value
    return array


WRONG = {
    "no key": (dict(audio=None), "a batch has no 'audio'; it has 'video', 'labels'."),
    "a misspelt key": (
        dict(audio=None, adio=AUDIO),
        "a batch has no 'audio' (did you mean 'adio'?); it has 'video', 'labels', 'adio'.",
    ),
    "floats to 1": (
        dict(video=UNIT),
        "'video' is of type float32 with values from 0 to 1; give uint8 RGB levels, 0 to 255: "
        "(255 * video).round().astype('uint8').",
    ),
    "floats to 255": (dict(video=UNIT * 255), "0 to 255: video.round().astype('uint8')."),
    "int64 levels": (dict(video=VIDEO.astype(int)), "0 to 255: video.astype('uint8')."),
    "int8": (dict(video=VIDEO.astype(np.int8)), "as they are before any normalisation"),
    "normalised": (
        dict(video=(UNIT - 0.5) / 0.25),
        "with values from -2 to 2; give uint8 RGB levels, 0 to 255, as they are before any",
    ),
    "NaN pixels": (dict(video=UNIT * np.nan), "float32 and not finite; give uint8 RGB levels"),
    "masks": (dict(video=VIDEO > 9), "'video' is of type bool; give uint8 RGB levels"),
    "[b, t, 3, h, w]": (
        dict(video=VIDEO.transpose(0, 1, 4, 2, 3)),
        "(6, 4, 3, 32, 32), [b, t, 3, h, w]; give [b, t, h, w, 3], which config.data makes "
        "(6, 4, 32, 32, 3): video.transpose(0, 1, 3, 4, 2).",
    ),
    "[b, 3, t, h, w]": (
        dict(video=VIDEO.transpose(0, 4, 1, 2, 3)),
        "(6, 3, 4, 32, 32), [b, 3, t, h, w]; give [b, t, h, w, 3], which config.data makes "
        "(6, 4, 32, 32, 3): video.transpose(0, 2, 3, 4, 1).",
    ),
    "grey": (dict(video=VIDEO[..., :1]), "with 1 channels; give [b, t, h, w, 3]"),
    "a clip": (dict(video=VIDEO[0]), "(4, 32, 32, 3), without an axis for the clips; give"),
    "frames alone": (dict(video=VIDEO[:, 0]), "has the shape (6, 32, 32, 3); give [b, t, h, w, 3]"),
    "a number": (dict(video=3), "'video' has the shape (); give [b, t, h, w, 3]"),
    "few frames": (
        dict(video=VIDEO[:, :2]),
        "(6, 2, 32, 32, 3), 2 frames a clip, and config.data.num_frames is 4; make them equal.",
    ),
    "small frames": (
        dict(video=VIDEO[:, :, :16]),
        "frames of 16 x 32 px, and config.data.frame_size_px is 32; make them equal",
    ),
    "clips of different lengths": (
        dict(video=[*VIDEO[:5], VIDEO[5, :2]]),
        "'video' is a list that makes no array",
    ),
    "texts": (dict(video=["a.mp4"] * 6), "'video' is of type <U5; give one NumPy array of numbers"),
    "objects": (dict(audio=[None] * 6), "'audio' is of type object; give one NumPy array"),
    "[b, f, s]": (
        dict(audio=AUDIO.transpose(0, 2, 1)),
        "(6, 128, 100), [b, f, s]; give [b, s, f], which config.data makes (6, 100, 128): "
        "audio.transpose(0, 2, 1).",
    ),
    "waveforms": (
        dict(audio=np.zeros((6, 16000))),
        "(6, 16000); give [b, s, f], which config.data makes (6, 100, 128): of waveforms, "
        "avt_jax.fbank of each.",
    ),
    "a sound": (dict(audio=AUDIO[0]), "(100, 128), without an axis for the clips; give [b, s, f]"),
    "a channel too many": (dict(audio=AUDIO[:, None]), "has the shape (6, 1, 100, 128); give"),
    "64 bins": (dict(audio=AUDIO[..., :64]), "with 64 mel bins; give [b, s, f]"),
    "short sound": (
        dict(audio=AUDIO[:, :96]),
        "96 rows a clip, and config.data.clip_sec asks for 100, 100 a second; make them equal.",
    ),
    "fewer sounds": (dict(audio=AUDIO[:5]), "'video' of 6 clips and 'audio' of 5."),
    "NaN": (
        dict(audio=with_one(AUDIO, np.nan)),
        "'audio' of clip 3 holds nan; give finite values, digital silence is -15.94.",
    ),
    "beyond float32": (dict(audio=with_one(AUDIO.astype(float), 1e300)), "clip 3 holds inf; give"),
    "samples": (dict(audio=AUDIO.astype(np.int16)), "'audio' is of type int16; give raw log-mel"),
    "complex": (dict(audio=AUDIO.astype(complex)), "'audio' is of type complex128; give one NumPy"),
    "no labels": (dict(labels=None), "a batch has no 'labels'; it has 'video', 'audio'."),
    "labels alone": (dict(labels=LABEL), "'labels' is a ndarray; give a dict, {'label': array}."),
    "another set": (
        dict(labels={"lable": LABEL}),
        "'labels' has no 'label' (did you mean 'lable'?); give an array for every label set.",
    ),
    "label 100": (
        labels(with_one(LABEL, 100)),
        "a batch's labels['label'] of clip 3 is 100, and 4 classes have the numbers 0 to 3; give",
    ),
    "label 4": (labels(with_one(LABEL, 4)), "clip 3 is 4, and 4 classes"),
    "label -1": (labels(with_one(LABEL, -1)), "clip 3 is -1, and 4 classes"),
    "one-hot": (
        labels(np.eye(4)[LABEL]),
        "labels['label'] has the shape (6, 4), a number for each class; give class indices (6,): "
        "labels.argmax(1); or, where a clip has several classes, give "
        "OwnData(multi_label=('label',)).",
    ),
    "fewer labels": (labels(LABEL[:5]), "(5,) and 'video' has 6 clips; give (6,)."),
    "float labels": (labels(LABEL / 1), "is of type float64; give whole numbers from 0 to 3."),
    "names": (labels(["cat"] * 6), "a batch's labels['label'] is of type <U3; give one NumPy"),
    "too many": (
        {k: np.concatenate([v, v]) for k, v in RIGHT.items() if k != "labels"}
        | labels(np.tile(LABEL, 2)),
        "a batch has 12 clips; give 1 to 8.",
    ),
    "none": (
        {k: v[:0] for k, v in RIGHT.items() if k != "labels"} | labels(LABEL[:0]),
        "a batch has no clips; give one at least.",
    ),
    "few flags": (dict(valid=np.ones(3, bool)), "'valid' has the shape (3,); give (6,)."),
    "flags as floats": (
        dict(has_audio=np.ones(6)),
        "'has_audio' is of type float64; give bool: has_audio.astype(bool).",
    ),
    "groups by name": (dict(group=["a"] * 6), "'group' is of type <U1; give one NumPy array"),
    "large groups": (dict(group=np.arange(6) << 40), "give whole numbers that fit in int32"),
    "few groups": (dict(group=np.arange(3)), "'group' has the shape (3,); give (6,)."),
    "few names": (dict(id=["a"]), "'id' has the shape (1,); give (6,)."),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_batches_are_one_sentence(name):
    changes, message = WRONG[name]
    with pytest.raises(avt_jax.UserError) as error:
        check(**changes)
    said = str(error.value)
    assert message in said and said.startswith("a batch")
    assert said.endswith(".") and "\n" not in said


@pytest.mark.parametrize("batch", [(VIDEO, LABEL), [VIDEO], None, VIDEO])
def test_a_batch_is_a_dictionary(batch):
    with pytest.raises(avt_jax.UserError, match="a batch is a .*; give a dict with 'video', 'aud"):
        checked(batch, SPEC, CLASSES, 8)


@pytest.mark.parametrize("name", ["floats to 1", "floats to 255", "int64 levels"])
def test_the_advice_for_levels_makes_the_levels(name):
    changes, message = WRONG[name]
    formula = re.search(r"0 to 255: (.*)\.$", message)[1]
    np.testing.assert_array_equal(eval(formula, {"video": changes["video"]}), VIDEO)


@pytest.mark.parametrize("name", ["[b, t, 3, h, w]", "[b, 3, t, h, w]", "[b, f, s]"])
def test_the_advice_for_axes_makes_the_array(name):
    changes, message = WRONG[name]
    ((key, array),) = changes.items()
    np.testing.assert_array_equal(
        eval(re.search(rf"{key}\.transpose.*\)", message)[0], {key: array}),
        RIGHT[key],
    )


@pytest.mark.parametrize("make", [list, jnp.asarray, np.asarray], ids=["lists", "jax", "numpy"])
def test_arrays_of_any_library_and_lists_of_arrays_are_taken(make):
    found = check(video=make(VIDEO), audio=make(AUDIO), **labels(make(LABEL)))
    np.testing.assert_array_equal(found["video"], VIDEO)
    np.testing.assert_array_equal(found["audio"], AUDIO)
    assert found["audio"].dtype == np.float32 and found["labels"]["label"].dtype == np.int32


def test_what_is_left_out_is_filled_in():
    found = check(audio=AUDIO.astype(np.float16))
    told = {"has_audio", "has_video", "group", "valid", "id"}
    assert found.keys() == {"video", "audio", "labels"} | told and found["has_video"].all()
    assert found["valid"].all() and found["has_audio"].all() and len(set(found["group"])) == 6
    kept = check(valid=LABEL > 0, group=LABEL, has_audio=LABEL > 1, id=list("abcdef"))
    assert (kept["valid"] == (LABEL > 0)).all() and (kept["group"] == LABEL).all()
    assert (kept["has_audio"] == (LABEL > 1)).all() and kept["id"][5] == "f"


FRAMES = RNG.integers(0, 256, (8, 40, 48, 3), np.uint8)


def record(**changes):
    right = dict(frames_thwc=FRAMES, frame_rate_hz=8.0, labels={"label": 1}, id="x")
    return avt_jax.record_from_arrays(**(right | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(frames_thwc=FRAMES[..., 0]), "are uint8 (8, 40, 48); give uint8 [t, h, w, 3]."),
        (dict(frames_thwc=FRAMES / 255), "give uint8 [t, h, w, 3]: (255 * frames).round()"),
        (dict(frames_thwc=FRAMES / 1), "[t, h, w, 3]: frames.round().astype('uint8')."),
        (dict(frames_thwc=FRAMES / 99 - 1), "levels from 0 to 255 as they are before any norm"),
        (dict(frames_thwc=FRAMES.transpose(0, 3, 1, 2)), ": frames.transpose(0, 2, 3, 1)."),
        (dict(frames_thwc=FRAMES[:0]), "has 0 frames at 8 Hz; give at least one"),
        (dict(frame_rate_hz=0.0), "has 8 frames at 0 Hz"),
        (dict(frame_rate_hz=np.inf), "has 8 frames at inf Hz"),
        (dict(waveform=np.zeros(99), fbank_sf=np.zeros((9, 128))), "give one of them"),
        (dict(waveform=np.zeros((2, 16000))), "give [samples], mono: waveform.mean(0)."),
        (dict(waveform=np.zeros((16000, 2))), "give [samples], mono: waveform.mean(1)."),
        (dict(waveform=np.zeros(16000, np.int16)), "int16; give floats in [-1, 1]: waveform / 3"),
        (dict(waveform=np.full(16000, 9e3)), "reaches 9000; give floats in [-1, 1]: waveform / 3"),
        (dict(waveform=np.full(16000, np.nan)), "holds values that are not finite"),
        (dict(waveform=np.zeros(99), sample_rate_hz=16), "a sample rate of 16 Hz; give 1000"),
        (dict(fbank_sf=np.zeros((10, 64))), "is (10, 64); give [s, 128], finite."),
        (dict(fbank_sf=np.zeros((128, 10))), "is (128, 10); give [s, 128]: fbank.T."),
        (dict(fbank_sf=np.full((10, 128), np.nan)), "is (10, 128); give [s, 128], finite."),
        (dict(fbank_sf=np.full((10, 128), 1e9)), "is (10, 128); give [s, 128], finite."),
        (dict(labels=1), "the labels of 'x' are a int; give a dict, such as {'label': 0}."),
        (dict(labels={"label": "cat"}), "'label' is 'cat'; give a class index, a whole number."),
        (dict(labels={"label": 1.0}), "'label' is 1.0; give a class index"),
        (dict(labels={"label": True}), "'label' is True; give a class index"),
        (dict(labels={"label": -1}), "'label' is -1; give a class index from 0 up."),
    ],
)
def test_wrong_arrays_of_a_record_are_one_sentence(changes, message):
    with pytest.raises(avt_jax.UserError) as error:
        record(**changes)
    assert message in str(error.value) and "'x'" in str(error.value)


@pytest.mark.parametrize("value", [np.int64(2), np.uint8(2), np.array(2), 2])
def test_numbers_of_numpy_are_class_indices(value):
    assert record(labels={"label": value})["labels"] == {"label": 2}


SETS = {"label": ("a", "b", "c", "d")}


@pytest.mark.parametrize(
    ("label_sets", "message"),
    [
        ({}, "OwnData.label_sets is {}; give a dict"),
        (["a", "b"], "OwnData.label_sets is ['a', 'b']; give a dict, such as {'label': ["),
        ({"label": "ab"}, "OwnData.label_sets['label'] is 'ab'; give the names of the classes"),
        ({"label": ()}, "OwnData.label_sets['label'] is (); give the names"),
        ({"label": (1, 2)}, "is (1, 2); give the names of the classes, a list of str."),
        ({"label": ("a", "b", "a")}, "names 'a' twice; give it once."),
    ],
)
def test_label_sets_are_names(label_sets, message):
    with pytest.raises(avt_jax.UserError) as error:
        open_splits(None, OwnData(label_sets, [record()]))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (record(labels={"label": 100}), "the labels of OwnData.val[1]: 'label' is 100; give a "
            "class index from 0 to 3."),
        (record(labels={"verb": 1}), "the labels of OwnData.val[1] have no 'label'"),
        (3, "OwnData.val[1] is a int; give a record, such as avt_jax.record_from_arrays makes."),
        ({k: v for k, v in record().items() if k != "fbank"}, "OwnData.val[1] has no 'fbank'"),
    ],
)  # fmt: skip
def test_a_wrong_record_is_an_error_and_no_damage(wrong, message):
    val = open_splits(None, OwnData(SETS, [record()], [record(), wrong])).val
    val = pickle.loads(pickle.dumps(val))  # as for a worker process
    assert val[0]["labels"] == {"label": 1}
    with pytest.raises(avt_jax.UserError) as error:
        make_usable_example(dict, val, 1, split="val", path="", max_damaged=10)
    assert message in str(error.value)
