"""Batches for training and evaluation, prepared ahead of time by Grain.

Training walks over an endless sequence of positions. Position g stands for one clip of epoch
g // len(source), shuffled anew each epoch, and for one draw of every random number that varies it;
both depend on (seed, g) alone. With balanced classes g stands for a draw of one class, see
`balance`. Process p of P takes every P-th position, starting at p. So the
number of threads, workers and processes changes who prepares an example, never what it is.

A damaged record ends an evaluation, whose result would be of other clips than it says. Training
takes the next record instead and counts, see `damaged`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeGuard

import grain
import numpy as np
from absl import flags

from avt_jax.data.loading import damaged, shared_arrays
from avt_jax.data.loading.balance import BalancedClips
from avt_jax.data.loading.batches import (
    EvalBatches,
    MakeTrainBatch,
    Source,
    ViewBatches,
    draw_seed,
)
from avt_jax.data.loading.config import AUTO_WORKERS, DataConfig
from avt_jax.errors import UserError
from avt_jax.host import worker_pool


def make_train_iterator(
    source: Source,
    config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    groups: Sequence[np.ndarray] = (),
) -> TrainIterator:
    """Endless batches of randomly varied clips, every clip once per epoch.

    Where an epoch ends inside a batch, the rest of the batch comes from the next epoch, so a batch
    may be larger than the data set. With `config.num_workers` > 0 the main module of the program
    must be importable without side effects (`if __name__ == "__main__":`), because the workers
    import it.

    Args:
      source: the training split.
      config: the data block.
      batch_size: clips per batch of this process, >= 1.
      seed: >= 0; decides order and variation.
      process_index: of this process, in [0, process_count).
      process_count: processes that share the data; together they see what one would.
      groups: from `balance.clips_by_class`, classes to be drawn equally often; () = none are.

    Returns:
      An iterator over batches (see `avt_jax.axes`), all of them valid.

    Raises:
      UserError: the source is empty, or the seed is negative.
      ValueError: a bad batch size or process index.
    """
    _check_share(batch_size, process_index, process_count)
    _check_training(source, config, seed)
    shuffle_seed, vary_seed = map(int, np.random.SeedSequence(seed).generate_state(2, np.uint32))
    # Every process sees all draws: the index that seeds each example is the global one.
    indices = grain.MapDataset.range(len(source)).shuffle(seed=shuffle_seed).repeat()
    if groups:
        indices = indices.map_with_index(BalancedClips(groups, len(source), seed))
    draws = indices.random_map(draw_seed, seed=vary_seed)

    def batches_from(first: int) -> grain.MapDataset:
        # There is no remainder to drop, but without this Grain computes the endless length in
        # floating point, which does not fit.
        return draws[first:][process_index::process_count].batch(
            batch_size, drop_remainder=True, batch_fn=MakeTrainBatch(source, config)
        )

    identity = {
        "seed": int(seed),
        "num_clips": len(source),
        "global_batch_size": batch_size * process_count,
    }
    damage = damaged.DamageCount(
        path=config.path, num_clips=len(source), max_damaged=config.max_damaged
    )
    return TrainIterator(batches_from, _settled(config), identity, damage)


def eval_batches(
    source: Source,
    config: DataConfig,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[dict[str, Any], None, None]:
    """Every clip once, in order, unvaried; with several views of a clip, one after another.

    Process p of P takes clips p, p + P, ...; all processes get the same number of batches. What
    does not fill the last ones is filled with copies of a view, `valid` False. The views of a clip
    may begin in one batch and end in the next.

    Args:
      source: the split to evaluate.
      config: the data block.
      batch_size: views per batch of this process, >= 1.
      process_index: of this process, in [0, process_count).
      process_count: processes that share the data.

    Returns:
      A generator of batches (see `avt_jax.axes`); `close()` it when leaving early. It raises a
      UserError where a record is damaged, and names it.

    Raises:
      ValueError: a bad batch size or process index.
    """
    _check_share(batch_size, process_index, process_count)
    batches = EvalBatches(source, config, batch_size, process_index, process_count)
    return _closing(grain.MapDataset.source(batches), _settled(config))


def view_batches(
    source: Source, config: DataConfig, *, batch_size: int, views: int, seed: int
) -> Generator[dict[str, Any], None, None]:
    """Views of every clip, one after another: the unvaried one, then varied ones.

    Args:
      source: the clips.
      config: the data block; `eval_split` names the split for messages.
      batch_size: views per batch, >= 1.
      views: varied ones of each clip.
      seed: >= 0; with a clip's index and the view's number it decides everything random.

    Returns:
      As `eval_batches`.
    """
    _check_share(batch_size, 0, 1)
    batches = ViewBatches(source, config, batch_size, views, seed)
    return _closing(grain.MapDataset.source(batches), _settled(config))


class TrainIterator:
    """Endless batches whose position is the number of clips taken; see `make_train_iterator`.

    An error leaves the position where it is, so the next call tries the same batch again.
    """

    def __init__(
        self,
        batches_from: Callable[[int], grain.MapDataset],
        config: DataConfig,
        identity: dict[str, int],
        damage: damaged.DamageCount,
    ):
        """Starts at the first batch.

        Args:
          batches_from: the batches from a position on.
          config: the data block.
          identity: seed, clips and batch size that a position refers to.
          damage: counts the damaged records.
        """
        self._batches_from = batches_from
        self._config = config
        self._identity = identity
        self._damage = damage
        self._position = 0
        self._num_batches = 0
        self._running: grain.DatasetIterator | None = None
        self._closed = False

    def __iter__(self) -> TrainIterator:
        return self

    def __next__(self) -> dict[str, Any]:
        """The next batch.

        Raises:
          UserError: more than `config.max_damaged` records are damaged (names the last by shard
            file and index), or a worker process died.
          ValueError: the iterator is closed.
        """
        if self._closed:
            raise ValueError("this iterator is closed")
        if self._running is None:
            # Grain's own state depends on the number of workers; a slice does not.
            self._running = _start(self._batches_from(self._position), self._config)
        try:
            batch = self._damage.take(_next(self._running, self._config))
        except BaseException:
            self._stop()
            raise
        self._position += self._identity["global_batch_size"]
        self._num_batches += 1
        return batch

    @property
    def num_damaged(self) -> int:
        """Different damaged records that were met so far; survives `set_state`.

        Each process counts those of its own share.
        """
        return len(self._damage)

    def get_state(self) -> dict[str, Any]:
        """The position, ready for JSON: what was taken, of what, and damage met on the way.

        "clips" counts those of all processes.
        """
        return {
            "batches": self._num_batches,
            "clips": self._position,
            "damaged": self._damage.get_state(),
            **self._identity,
        }

    def set_state(self, state: Mapping[str, Any]) -> list[str]:
        """Goes to a saved position; what follows is exactly what followed there.

        Threads, workers and processes may differ from those of the run that saved it. So may the
        batch size: the clips stay in their order. Of a data set that has got another number of
        clips since then, the next epoch begins.

        Args:
          state: from `get_state`.

        Returns:
          What the user should know of it, a line each.

        Raises:
          UserError: the position is of another seed, or damaged.
        """
        old = dict(state) if isinstance(state, Mapping) else {}
        num_batches, old_clips = old.get("batches"), old.get("num_clips")
        # Positions saved by earlier versions count batches only.
        position = old.get("clips")
        if position is None and _is_count(num_batches) and _is_count(old.get("global_batch_size")):
            position = num_batches * old["global_batch_size"]
        if not (_is_count(num_batches) and _is_count(position) and _is_count(old_clips)):
            raise UserError(f"the saved position in the data is damaged: {state!r}.")
        if old.get("seed") != self._identity["seed"]:
            raise UserError(
                f"the saved position in the data is for seed={old.get('seed')!r}, but now it is "
                f"{self._identity['seed']}; continue with the same seed, or start a new run."
            )
        said = []
        clips = self._identity["num_clips"]
        if old_clips == clips:
            self._damage.set_state(old.get("damaged", []))
        else:
            position = -(-position // max(old_clips, 1)) * clips
            said.append(
                f"the training split has {clips} clips now, not {old_clips}: its next epoch begins"
            )
        self._stop()
        self._position, self._num_batches = position, num_batches
        return said

    def close(self) -> None:
        """Ends threads and workers. May be called twice."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.close()


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_training(source: Source, config: DataConfig, seed: int) -> None:
    if not len(source):
        raise UserError(
            f"the split {config.train_split!r} of {config.path} is empty; extract more clips."
        )
    if seed < 0:
        raise UserError(f"the seed is {seed}; give 0 or more.")


def _check_share(batch_size: int, process_index: int, process_count: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}, expected 1 or more")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index={process_index} is not in [0, {process_count})")


def _settled(config: DataConfig) -> DataConfig:
    if config.num_workers != AUTO_WORKERS:
        return config
    return dataclasses.replace(config, num_workers=0, num_threads=worker_pool.default_num_workers())


def _start(batches: grain.MapDataset, config: DataConfig) -> grain.DatasetIterator:
    """Begins to prepare `batches` in order, with the threads and workers of the config."""
    threads = config.num_threads
    # Fewer places than threads would leave threads without work.
    ahead = max(config.prefetch, threads) if threads else 0
    workers = config.num_workers
    if workers:
        ahead = threads  # per worker; finished batches wait in its queue instead
    dataset = batches.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    )
    if workers:
        if not flags.FLAGS.is_parsed():
            # Grain asks for a flag of its own. A program built on absl.app has parsed its flags by
            # now and is left alone; in any other there are none to parse.
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(
            num_workers=workers, per_worker_buffer_size=max(1, config.prefetch // workers)
        )
        dataset = dataset.mp_prefetch(options, worker_init_fn=_init_worker)
    return iter(dataset)


def _next(running: grain.DatasetIterator, config: DataConfig) -> dict[str, Any]:
    try:
        batch = next(running)
    except RuntimeError as error:
        if "terminated unexpectedly" in str(error):
            raise UserError(
                "a worker process of the input pipeline died, which happens when memory or "
                "/dev/shm is full; use a smaller config.data.num_workers or config.data.prefetch."
            ) from error
        raise
    return shared_arrays.plain(batch) if config.num_workers else batch


def _closing(
    batches: grain.MapDataset, config: DataConfig
) -> Generator[dict[str, Any], None, None]:
    if not len(batches):
        return
    running = _start(batches, config)
    try:
        while True:
            try:
                batch = _next(running, config)
            except StopIteration:
                return
            yield batch
    finally:
        running.close()


def _init_worker(worker_index: int, num_workers: int) -> None:
    """Lets a worker live exactly as long as the main process."""
    del worker_index, num_workers  # Grain passes them to every such function
    worker_pool.guard_worker(survives_sigterm=True)
