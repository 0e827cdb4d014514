import cv2
import numpy as np
import pytest
import simplejpeg

from avt_jax.evaluation import baseline
from avt_jax.evaluation.baseline import Baseline, Features


def test_directions_of_an_edge():
    # A ramp to the right has its gradient at 0 degrees, between the first and the last direction.
    right = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (64, 64, 3))
    for image, directions in ((right, {0, 8}), (right.transpose(1, 0, 2), {4})):
        blocks = baseline.oriented_gradients(image)
        assert blocks.shape == (7, 7, 36)
        middle = blocks[3, 3].reshape(4, 9)
        assert {i for i in range(9) if middle[:, i].min() > 0.1} == directions
        # Of norm 1 before and after the cut, but for what keeps a flat block from dividing by 0.
        np.testing.assert_allclose(np.linalg.norm(blocks, axis=-1), 1, atol=1e-5)
    assert np.abs(baseline.oriented_gradients(np.full((64, 64, 3), 9, np.uint8))).max() == 0


def test_turning_a_picture_turns_its_directions():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 255, (64, 64, 3), np.uint8), (9, 9), 0)
    upright = baseline.oriented_gradients(image).reshape(7, 7, 4, 9)
    mirrored = baseline.oriented_gradients(image[:, ::-1]).reshape(7, 7, 4, 9)
    # Left and right cells change places, and an angle a becomes 180 - a.
    np.testing.assert_allclose(mirrored, upright[:, ::-1][:, :, [1, 0, 3, 2], ::-1], atol=1e-9)


def test_sound_by_pitch():
    fbank = np.zeros((50, 128), np.float16)
    fbank[:, 8:12] = np.arange(50)[:, None]
    mean, std, high, change = baseline.audio_features(fbank).reshape(4, 32)
    assert np.flatnonzero(mean).tolist() == [2]
    assert (mean[2], change[2]) == pytest.approx((24.5, 1.0))
    assert std[2] == pytest.approx(np.arange(50).std()) and high[2] == pytest.approx(44.1)
    assert not baseline.audio_features(np.zeros((0, 128))).any()


def features(rng, groups, *, classes=3, noise=0.3):
    label_n = np.repeat(rng.integers(classes, size=groups), 4)
    seen = np.eye(classes)[label_n] @ np.eye(classes, 40)
    made = {
        "video": seen + noise * rng.normal(size=seen.shape),
        "audio": rng.normal(size=(len(label_n), 12)),
    }
    group_n = np.repeat(np.arange(groups), 4)
    return Features(made, {"label": label_n}, group_n, np.arange(len(label_n)))


def test_it_learns_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    train, test = features(rng, 60), features(rng, 60)
    label_n = test.labels["label"]
    for modalities, low, high in ((["video"], 0.9, 1), (["video", "audio"], 0.88, 1)):
        predicted = Baseline(train, modalities).predict(test)["label"]
        assert low <= np.mean(predicted == label_n) <= high
    predicted = Baseline(train, ["audio"]).predict(test)["label"]
    # 240 clips at random: 1/3 and three standard deviations of clips that go by fours.
    assert np.mean(predicted == label_n) < 0.5


def test_a_class_alone_and_few_sources():
    rng = np.random.default_rng(0)
    one = features(rng, 2, classes=1)
    assert set(Baseline(one, ["video"]).predict(one)["label"]) == {0}
    two = features(rng, 2, classes=2)
    assert len(Baseline(two, ["video", "audio"]).predict(two)["label"]) == 8


def test_damaged_clips_are_left_out():
    image = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    jpeg = simplejpeg.encode_jpeg(image)
    record = {"fbank": np.zeros((20, 128), np.float16), "source": "a", "labels": {"label": 1}}
    records = [
        record | {"frames": [jpeg]},
        record | {"frames": [b"no jpeg"]},
        record | {"frames": []},
        record | {"frames": [jpeg], "fbank": np.full((20, 128), np.nan, np.float16)},
    ]
    found = baseline.read_features(records)
    assert found.index_n.tolist() == [0, 2]
    assert found.blocks["video"][0].any() and not found.blocks["video"][1].any()
