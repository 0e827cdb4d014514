"""How many threads and workers are tried, and which are taken."""

import dataclasses

import pytest
from clip_records import noise_record

from avt_jax.data.loading import pipeline, tune_workers
from avt_jax.data.loading.config import AUTO_WORKERS, DataConfig
from avt_jax.data.loading.tune_workers import Trial

CONFIG = DataConfig(
    path="x", num_frames=2, clip_sec=0.5, frame_size_px=16, num_workers=AUTO_WORKERS
)


def with_rates(monkeypatch, rate):
    """Replaces the measurement by a function of threads and workers."""
    monkeypatch.setattr(
        tune_workers,
        "measure_rate",
        lambda source, config: rate(config.num_threads, config.num_workers),
    )


def tried(num_cores):
    return [
        (trial.num_threads, trial.num_workers)
        for trial in tune_workers.try_settings([], CONFIG, num_cores=num_cores)
    ]


@pytest.mark.parametrize(
    "num_cores,expected",
    [
        (1, [(1, 0)]),
        (2, [(1, 0), (2, 0), (1, 2)]),
        (6, [(1, 0), (2, 0), (4, 0), (6, 0), (1, 2), (1, 4), (1, 6)]),
    ],
)
def test_all_are_tried_as_long_as_more_helps(monkeypatch, num_cores, expected):
    with_rates(monkeypatch, lambda threads, workers: threads + 2 * workers)
    assert tried(num_cores) == expected


def test_a_series_ends_where_more_does_not_help(monkeypatch):
    with_rates(monkeypatch, lambda threads, workers: min(threads, 3) if not workers else 1.0)
    assert tried(64) == [(1, 0), (2, 0), (4, 0), (8, 0), (1, 2), (1, 4)]


def test_after_the_limit_no_other_is_begun(monkeypatch):
    with_rates(monkeypatch, lambda threads, workers: threads + 2 * workers)
    monkeypatch.setattr(tune_workers, "_LIMIT_SEC", -1.0)
    assert tried(8) == [(1, 0)]


def test_the_smallest_of_about_equal_ones_is_chosen():
    trials = [Trial(1, 0, 50.0), Trial(2, 0, 95.0), Trial(4, 0, 99.0), Trial(1, 2, 100.0)]
    assert tune_workers.choose(trials) == trials[1]
    assert tune_workers.choose([*trials, Trial(1, 4, 300.0)]).num_workers == 4


def test_automatic_is_settled_and_anything_else_left_alone(monkeypatch):
    with_rates(monkeypatch, lambda threads, workers: 10 * threads)
    monkeypatch.setattr(tune_workers.worker_pool, "default_num_workers", lambda: 4)
    said = []
    settled = tune_workers.settle([], CONFIG, say=said.append)
    assert settled == dataclasses.replace(CONFIG, num_threads=4, num_workers=0)
    assert len(said) == 6 and "num_threads=4 and config.data.num_workers=0" in said[-1]
    fixed = dataclasses.replace(CONFIG, num_workers=3)
    assert tune_workers.settle([], fixed) is fixed


def test_a_real_measurement_and_training_without_one(monkeypatch):
    monkeypatch.setattr(tune_workers, "_TRIAL_SEC", 0.05)
    source = [noise_record(i, num_frames=4, duration_sec=0.5) for i in range(3)]
    [trial] = tune_workers.try_settings(source, CONFIG, num_cores=1)
    assert trial.num_threads == 1 and trial.clips_per_sec > 0
    # Where nobody measures, automatic is one thread per core.
    assert len(list(pipeline.eval_batches(source, CONFIG, batch_size=2))) == 2


def test_inspect_prints_the_choice(monkeypatch, shards, capsys):
    from avt_jax.cli import main as cli

    with_rates(monkeypatch, lambda threads, workers: 10 * threads + 0.1)
    monkeypatch.setattr(tune_workers.worker_pool, "default_num_workers", lambda: 2)
    assert cli.main(["inspect", str(shards), "--probe"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 thread(s), no workers: 10.1 clips/s"
    assert lines[-1] == "use --config.data.num_threads=2 --config.data.num_workers=0"
    assert not (shards / "contact_sheet.png").exists()
