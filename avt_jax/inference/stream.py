"""Many files through one model: windows are decoded ahead and put into full batches.

What is wrong with a file is that file's result; the others do not notice. With worker processes
that holds for files, too, that crash or hang a codec.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from avt_jax import axes
from avt_jax.data.extraction.clip_record import ExtractConfig, check_picture, make_record
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.loading.sampling import eval_example
from avt_jax.data.media.container import DecodeError
from avt_jax.data.media.probe import MediaInfo, probe
from avt_jax.errors import UserError
from avt_jax.host.worker_pool import TimedOut, WorkerDied, ordered_map
from avt_jax.inference.windows import read_ahead

if TYPE_CHECKING:  # worker processes, which import this module, need no JAX
    from avt_jax.inference.load import BatchFn

# Why a later window may have no frame although the file goes on: its sound lasts longer.
_PICTURES_END = ("span_past_end", "unreadable")
_INPUTS = (axes.VIDEO, axes.AUDIO, axes.HAS_AUDIO)

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)
Span = tuple[float, float]


class Collector(Protocol[R_co]):
    """Takes what the model makes of a file's windows, in order."""

    def add(self, record: dict[str, Any], values: Mapping[str, np.ndarray]) -> None:
        """Takes the next window: its record, and the model's values without the axis of batches."""

    def result(self) -> R_co:
        """What all windows together give."""


Begin = Callable[[str, MediaInfo], tuple[Sequence[Span], Collector[T]]]
"""(path, what the file holds) -> (its windows, who takes them). Raises UserError to refuse it."""


@dataclass(frozen=True)
class Task:
    """Something to find out about a file.

    Attributes:
      number: of the file.
      path: of the file.
      index: of the window.
      span: to be decoded, in seconds; None = what the file holds.
    """

    number: int
    path: str
    index: int = 0
    span: Span | None = None


@dataclass(frozen=True)
class Decoder:
    """Does tasks, in any thread or process. What goes wrong is a result.

    Attributes:
      extract: how clips are stored.
      data: what the model reads of them.
    """

    extract: ExtractConfig
    data: DataConfig

    def __call__(self, task: Task) -> MediaInfo | tuple[dict[str, Any], dict[str, Any]] | Exception:
        """Gives what the file holds, or the record and the example of a window."""
        path = task.path
        try:
            if task.span is None:
                media = probe(path)
                check_picture(path, media)
                return media
            record = make_record(path, *task.span, config=self.extract, id=path, source=path)
            # Nobody knows the classes of a raw file.
            return record, eval_example(record | {"labels": {}}, self.data)
        except DecodeError as error:
            return error
        except Exception as error:  # whatever a hostile file provokes in a codec
            return DecodeError(
                "unexpected", f"{path} cannot be decoded ({type(error).__name__}: {error})"
            )


@dataclass(eq=False)
class _File(Generic[T]):
    """A file on its way through the model."""

    path: str
    collector: Collector[T] | None = None
    num_planned: int = 0
    num_wanted: int | None = None  # fewer than planned where the pictures end early
    num_done: int = 0
    has_video: bool = False
    error: UserError | None = None

    @property
    def needs_no_more(self) -> bool:
        """Whether further windows would not be looked at."""
        return self.error is not None or (
            self.num_wanted is not None and self.num_wanted < self.num_planned
        )

    @property
    def is_finished(self) -> bool:
        """Whether there is an outcome."""
        return self.error is not None or self.num_done == self.num_wanted

    def outcome(self) -> T | UserError:
        """The collector's result, or why there is none."""
        if self.collector is None or self.error is not None:
            assert self.error is not None, "a file without windows has an error"
            return self.error
        return self.collector.result()


# A window that was decoded: its file, its record, what the model reads of it.
_Window = tuple[_File[Any], dict[str, Any], dict[str, Any]]


@dataclass(eq=False)
class _Tasks(Generic[T]):
    """The tasks that are known of now; more may follow after an end, of files looked into."""

    paths: Iterator[str]
    files: dict[int, _File[T]] = field(default_factory=dict)
    windows: collections.deque[Task] = field(default_factory=collections.deque)
    count: int = 0

    def __iter__(self) -> _Tasks[T]:
        return self

    def __next__(self) -> Task:
        # Windows first: then only as many files are open as tasks are under way.
        while self.windows:
            task = self.windows.popleft()
            file = self.files.get(task.number)
            if file is not None and not file.needs_no_more:
                return task
        path = next(self.paths)
        self.files[self.count] = _File(path)
        self.count += 1
        return Task(self.count - 1, path)

    def finished(self) -> Iterator[tuple[str, T | UserError]]:
        """Takes away what is finished, up to the first file that is not."""
        for number in list(self.files):
            if not self.files[number].is_finished:
                return
            file = self.files.pop(number)
            yield file.path, file.outcome()


@dataclass(frozen=True)
class DecodeOptions:
    """How files are decoded.

    Attributes:
      num_threads: >= 1, of this process; used without workers.
      num_workers: processes that decode; 0 = none but this one.
      time_limit_sec: of a window, and of a look into a file; None = for ever. Needs workers.
    """

    num_threads: int = 2
    num_workers: int = 0
    time_limit_sec: float | None = None


@dataclass(frozen=True)
class Job(Generic[T]):
    """What is done with each file.

    Attributes:
      begin: plans a file.
      model: batch of exactly `batch_size` examples -> {name: [b, ...]}.
      batch_size: >= 1; a batch holds windows of several files where these are short.
      undone: what did not happen to a file that cannot be decoded, "was not classified".
      on_window: called with (path, windows done, windows planned).
    """

    begin: Begin[T]
    model: BatchFn
    batch_size: int
    undone: str
    on_window: Callable[[str, int, int], None]


def run_files(
    paths: Iterable[str], job: Job[T], decoder: Decoder, options: DecodeOptions
) -> Generator[tuple[str, T | UserError], None, None]:
    """Runs a model on all windows of files.

    Args:
      paths: of the files; read while the first ones are worked on.
      job: what is done with each.
      decoder: does the tasks.
      options: how they are decoded.

    Yields:
      (path, the collector's result, or why there is none), in the order of the files.
    """
    tasks: _Tasks[T] = _Tasks(iter(paths))
    group: list[_Window] = []
    with contextlib.closing(_done(tasks, decoder, job.batch_size, options)) as done:
        for task, found in done:
            file = tasks.files.get(task.number)
            if file is not None and not file.needs_no_more:
                if isinstance(found, MediaInfo):
                    tasks.windows += _plan(file, task.number, found, job.begin)
                elif isinstance(found, Exception):
                    _note_end(file, task, found, job.undone)
                else:
                    group.append((file, *found))
            if len(group) == job.batch_size:
                _run_batch(group, job)
                group.clear()
            yield from tasks.finished()
    if group:
        _run_batch(group, job)
    yield from tasks.finished()


def _done(
    tasks: _Tasks[Any], decoder: Decoder, batch_size: int, options: DecodeOptions
) -> Generator[tuple[Task, Any], None, None]:
    """Does the tasks, some ahead of time, and yields them in order with what came of them."""
    if options.num_workers:
        yield from ordered_map(
            decoder,
            tasks,
            num_workers=options.num_workers,
            time_limit_sec=options.time_limit_sec,
        )
        return
    depth = batch_size + options.num_threads
    with (
        ThreadPoolExecutor(options.num_threads) as pool,
        contextlib.closing(
            read_ahead(pool, lambda task: (task, decoder(task)), tasks, depth=depth)
        ) as done,
    ):
        yield from done


def _note_end(file: _File[Any], task: Task, found: Exception, undone: str) -> None:
    """A window, or the whole file, could not be decoded."""
    if isinstance(found, DecodeError):
        if file.has_video and task.index and found.reason_code in _PICTURES_END:
            file.num_wanted = task.index
            return
        file.error = UserError(f"{found.message}; it {undone}.")
    elif isinstance(found, (WorkerDied, TimedOut)):
        file.error = UserError(f"{file.path} cannot be decoded ({found}); it {undone}.")
    else:
        raise found


def _plan(file: _File[T], number: int, media: MediaInfo, begin: Begin[T]) -> list[Task]:
    try:
        spans, file.collector = begin(file.path, media)
    except UserError as error:
        file.error = error
        return []
    file.has_video = media.has_video
    file.num_planned = file.num_wanted = len(spans)
    return [Task(number, file.path, index, span) for index, span in enumerate(spans)]


def _run_batch(group: Sequence[_Window], job: Job[Any]) -> None:
    """Hands each window's values to its file."""
    examples = [example for _, _, example in group]
    # Padded to the one batch size that the model is compiled for.
    examples += examples[-1:] * (job.batch_size - len(examples))
    found = job.model({key: np.stack([example[key] for example in examples]) for key in _INPUTS})
    for row, (file, record, _) in enumerate(group):
        values = {name: array[row] for name, array in found.items()}
        if not all(np.isfinite(value).all() for value in values.values()):
            file.error = file.error or UserError(
                f"what the model makes of {file.path} is not finite; its parameters are broken, "
                "use an earlier checkpoint."
            )
        if file.error is None and file.collector is not None:
            file.collector.add(record, values)
            file.num_done += 1
    for file in dict.fromkeys(file for file, _, _ in group):
        if file.error is None:
            job.on_window(file.path, file.num_done, file.num_planned)
