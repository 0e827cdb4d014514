"""Finds by trying how many threads or worker processes the input needs on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

from avt_jax.data.loading import pipeline
from avt_jax.data.loading.batches import Source
from avt_jax.data.loading.config import AUTO_WORKERS, DataConfig
from avt_jax.host import worker_pool

_BATCH_SIZE = 4
_TRIAL_SEC = 1.0
_LIMIT_SEC = 30.0
# Less than this is not worth another process or thread, and may be chance.
_WORTHWHILE = 1.1


@dataclasses.dataclass(frozen=True)
class Trial:
    """What one setting gave.

    Attributes:
      num_threads: as `DataConfig.num_threads`.
      num_workers: as `DataConfig.num_workers`.
      clips_per_sec: clips prepared, with nothing else going on.
    """

    num_threads: int
    num_workers: int
    clips_per_sec: float

    def __str__(self) -> str:
        where = f"{self.num_workers} worker process(es)" if self.num_workers else "no workers"
        return f"{self.num_threads} thread(s), {where}: {self.clips_per_sec:.1f} clips/s"


def settle(
    source: Source, config: DataConfig, *, say: Callable[[str], None] = lambda line: None
) -> DataConfig:
    """Replaces an automatic number of workers by the one that a few seconds' trial finds best.

    Args:
      source: the training split.
      config: the data block.
      say: told about each trial and the choice.

    Returns:
      The config; the very same where `num_workers` is not automatic.
    """
    if config.num_workers != AUTO_WORKERS:
        return config
    trials = list(try_settings(source, config, on_trial=lambda trial: say(f"input: {trial}")))
    chosen = choose(trials)
    say(
        f"input: config.data.num_threads={chosen.num_threads} and "
        f"config.data.num_workers={chosen.num_workers} from here on"
    )
    return dataclasses.replace(
        config, num_threads=chosen.num_threads, num_workers=chosen.num_workers
    )


def try_settings(
    source: Source,
    config: DataConfig,
    *,
    num_cores: int | None = None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> Iterator[Trial]:
    """Tries threads, then worker processes, twice as many each time, as long as that helps.

    Args:
      source: the training split.
      config: the data block; its number of threads and workers is not looked at.
      num_cores: most threads or workers tried; None = the cores this process may use.
      on_trial: called with each result.

    Yields:
      The results. After half a minute no other trial is begun.
    """
    num_cores = worker_pool.default_num_workers() if num_cores is None else num_cores
    began_sec = time.monotonic()
    counts = _doubling(num_cores)
    for series in ([(n, 0) for n in counts], [(1, n) for n in counts[1:]]):
        best_rate = 0.0
        for num_threads, num_workers in series:
            if best_rate and time.monotonic() - began_sec > _LIMIT_SEC:
                return
            setting = dataclasses.replace(config, num_threads=num_threads, num_workers=num_workers)
            trial = Trial(num_threads, num_workers, measure_rate(source, setting))
            on_trial(trial)
            yield trial
            if trial.clips_per_sec < _WORTHWHILE * best_rate:
                break
            best_rate = trial.clips_per_sec


def choose(trials: Sequence[Trial]) -> Trial:
    """The setting with the fewest processes, then threads, of those about as fast as the fastest.

    Args:
      trials: at least one.
    """
    fastest = max(trial.clips_per_sec for trial in trials)
    enough = [trial for trial in trials if trial.clips_per_sec * _WORTHWHILE >= fastest]
    return min(enough, key=lambda trial: (trial.num_workers, trial.num_threads))


def measure_rate(source: Source, config: DataConfig) -> float:
    """Clips per second of one setting, once threads and workers run.

    Args:
      source: the training split.
      config: the data block.
    """
    batches = pipeline.make_train_iterator(source, config, batch_size=_BATCH_SIZE, seed=0)
    with contextlib.closing(batches):
        # What was made ahead while starting would count as made in no time.
        for _ in range(1 + max(config.prefetch, config.num_threads)):
            next(batches)
        began_sec = time.monotonic()
        count = 0
        while time.monotonic() - began_sec < _TRIAL_SEC:
            next(batches)
            count += 1
        return count * _BATCH_SIZE / (time.monotonic() - began_sec)


def _doubling(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    counts = [1]
    while 2 * counts[-1] < most:
        counts.append(2 * counts[-1])
    return counts + [most] if most > counts[-1] else counts
