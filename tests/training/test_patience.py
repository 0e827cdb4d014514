"""Early stopping: when it ends a training, and that a continued run counts as one that was not."""

import pytest
from toy_run import checkpoints, counting_step, every, logged, run

import avt_jax
from avt_jax.training.patience import Patience


@pytest.mark.parametrize(
    ("most", "scores", "over_after"),
    [
        (0, [0.5] * 9, None),
        (1, [0.5, 0.6, 0.6], 3),
        (2, [0.5, 0.4, 0.6, 0.6, 0.5], 5),
        (2, [0.1, 0.2, 0.3, 0.4], None),
        (3, [0.5, 0.5, 0.5, 0.51, 0.1, 0.1], None),
    ],
)
def test_so_many_evaluations_in_a_row_without_a_better_score(most, scores, over_after):
    patience = Patience(most)
    for number, score in enumerate(scores, 1):
        patience.saw(score)
        assert patience.is_over == (over_after is not None and number >= over_after)
        # One that is told of them afterwards counts the same, and goes on as this one does.
        again = Patience(most, scores[:number]).as_the_first()
        assert vars(again) == vars(patience)


def test_the_loop_ends_with_a_checkpoint_and_says_why(tmp_path, capsys):
    scores = iter([0.5, 0.7, 0.6, 0.7, 0.9])
    state = run(
        tmp_path,
        *counting_step(),
        schedule=every(20, evaluate=2, checkpoint=0),
        evaluate=lambda state, asked: ({"top1/label": (score := next(scores))}, score),
        patience=Patience(2),
    )
    assert int(state.step) == 8 and checkpoints(tmp_path)[-1] == 8
    assert [entry["step"] for entry in logged(tmp_path, "val")] == [2, 4, 6, 8]
    said = capsys.readouterr().err
    assert "ended at step 8: 2 evaluations in a row without a better validation score" in said


def test_a_run_that_is_continued_counts_on(tmp_path, capsys):
    def train(folder, steps, patience):
        given = {
            "data.path": "generated:8:label=4",
            "model.modalities": "audio",
            "train": {"steps": steps, "eval_every_steps": 1, "patience": patience, "keep_best": 0},
            # Nothing is learned, so the score stays.
            "optimizer": {"lr": 0.0, "min_lr": 0.0, "weight_decay": 0.0, "warmup_epochs": 0.0},
        }
        config = avt_jax.load_config("quickstart:smoke", given)
        return int(avt_jax.train(config, tmp_path / folder, say=print).state.step)

    assert train("straight", 9, 2) == 3, "one that is the best so far, and two that are no better"
    assert train("stopped", 2, 2) == 2
    assert train("stopped", 9, 2) == 3
    capsys.readouterr()
    assert train("stopped", 9, 2) == 3
    said = capsys.readouterr().out
    assert "already finished: 2 evaluations in a row without a better validation score" in said
    assert "--config.train.patience=4 goes on" in said
    assert train("stopped", 9, 4) == 5
    assert train("stopped", 6, 0) == 6
