"""Batches of cached tokens: which view, and the views that are cached."""

import numpy as np
import pytest
from clip_records import noise_record
from token_shards import token_record

from avt_jax import UserError
from avt_jax.data.loading import pipeline, sampling
from avt_jax.data.loading.config import DataConfig

TOKENS = DataConfig(video_tokens=(3, 4), audio_tokens=(5, 2), num_threads=0)
CLIPS = DataConfig(num_frames=2, clip_sec=0.5, frame_size_px=16, num_threads=0)


def test_evaluation_takes_the_unvaried_view_and_training_the_others():
    record = token_record(3, views=3)
    example = sampling.eval_example(record, TOKENS)
    np.testing.assert_array_equal(example["video"], record["video_tokens"][0])
    np.testing.assert_array_equal(example["audio"], record["audio_tokens"][0])
    assert example["has_audio"] and not example["has_video"] and example["id"] == "clip-3"
    rng = np.random.default_rng(0)
    drawn = [sampling.train_example(record, TOKENS, rng) for _ in range(40)]
    found = {
        next(v for v in range(3) if (record["video_tokens"][v] == one["video"]).all())
        for one in drawn
    }
    assert found == {1, 2}
    for one in drawn:  # sound and picture of one view
        view = 1 if (record["video_tokens"][1] == one["video"]).all() else 2
        np.testing.assert_array_equal(one["audio"], record["audio_tokens"][view])


def test_without_varied_views_training_takes_what_there_is():
    record = token_record(1)
    one = sampling.train_example(record, TOKENS, np.random.default_rng(0))
    np.testing.assert_array_equal(one["video"], record["video_tokens"][0])


def test_batches_resume_exactly():
    source = [token_record(i, views=4) for i in range(7)]

    def batches():
        return pipeline.make_train_iterator(source, TOKENS, batch_size=3, seed=5)

    whole = batches()
    expected = [next(whole) for _ in range(6)]
    first, second = batches(), batches()
    for _ in range(3):
        next(first)
    second.set_state(first.get_state())
    for one in expected[3:]:
        found = next(second)
        for name in ("video", "audio", "id"):
            np.testing.assert_array_equal(one[name], found[name])
    assert expected[0]["video"].dtype == np.float32 and expected[0]["video"].shape == (3, 3, 4)


def test_tokens_of_one_modality_leave_the_other_empty():
    config = DataConfig(audio_tokens=(5, 2), num_threads=0)
    example = sampling.train_example(token_record(0, views=2), config, np.random.default_rng(0))
    assert example["video"].shape == (0, 0) and example["audio"].shape == (5, 2)


def test_tokens_of_another_shape_are_a_damaged_record():
    wrong = token_record(0, shapes={"video": (3, 4), "audio": (5, 3)})
    batches = pipeline.eval_batches([wrong], TOKENS, batch_size=1)
    with pytest.raises(UserError, match="audio tokens are"):
        next(batches)


def test_views_to_be_cached():
    source = [noise_record(i) for i in range(3)]

    def views(seed):
        found = pipeline.view_batches(source, CLIPS, batch_size=4, views=2, seed=seed)
        rows = [(b["video"][i], b["id"][i]) for b in found for i in range(4) if b["valid"][i]]
        assert [name for _, name in rows] == [f"clip-{i // 3}" for i in range(9)]
        return [video for video, _ in rows]

    one, again, other = views(0), views(0), views(1)
    np.testing.assert_array_equal(one, again)
    for clip in range(3):
        plain = sampling.eval_example(source[clip], CLIPS)["video"]
        np.testing.assert_array_equal(one[3 * clip], plain)
        assert (one[3 * clip + 1] != one[3 * clip + 2]).any()
        assert (one[3 * clip + 1] != other[3 * clip + 1]).any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(video_tokens=(3, 0)), "give tokens and width"),
        (dict(video_tokens=(-1, 4)), "config.data.video_tokens is"),
        (dict(video_tokens=(3, 4), eval_clips=2), "there is one view"),
    ],
)
def test_configs_that_make_no_sense(changes, words):
    with pytest.raises(UserError, match=words):
        DataConfig(**changes)
