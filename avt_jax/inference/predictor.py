"""Classifies raw video and sound files of any length with a trained run."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from avt_jax.data.extraction.clip_record import ExtractConfig
from avt_jax.data.media.probe import MediaInfo
from avt_jax.errors import UserError
from avt_jax.inference.embeddings.vectors import FileEmbedding
from avt_jax.inference.load import BatchFn, LoadedRun
from avt_jax.inference.prediction import FilePrediction, Window
from avt_jax.inference.stream import Collector, DecodeOptions, Decoder, Job, Span, run_files
from avt_jax.inference.windows import PreviewBuilder, check_hop, plan_windows
from avt_jax.training.inputs import checked_inputs, input_spec

T = TypeVar("T")
PathLike = str | os.PathLike[str]


class Predictor:
    """A trained run that classifies raw files.

    A window of a file goes through the same decoding, JPEG and spectrogram code as a clip in the
    shards, so the model sees what it saw in training.

    Args:
      run_dir: what `avt train --workdir` wrote.
      step: "best" or "last" checkpoint, or its step in digits.
      batch_size: windows per call of the model; None = 1 on a CPU, 8 on an accelerator.
      num_threads: windows decoded at the same time.
      say: is told when the model is compiled, which the first windows wait for; None = nobody.

    Raises:
      UserError: no such run, or it cannot be loaded.
    """

    def __init__(
        self,
        run_dir: PathLike,
        *,
        step: str = "best",
        batch_size: int | None = None,
        num_threads: int = 2,
        say: Callable[[str], None] | None = None,
    ):
        self._model = LoadedRun(Path(run_dir), step, say)
        self.run, self._data = self._model.run, self._model.data
        if self._data.is_tokens:
            raise UserError(
                f"{run_dir} was trained on cached tokens and has no encoders for files; 'avt "
                f"tokens --join {run_dir} --out RUN' makes a run that has them."
            )
        extract = ExtractConfig(
            frame_rate_hz=self.run.records["frame_rate_hz"],
            short_side_px=int(self.run.records["short_side_px"]),
            jpeg_quality=int(self.run.records["jpeg_quality"]),
            # A window is as long as the run's clips, whatever an extraction's limit.
            max_clip_sec=self._data.clip_sec + 1.0,
        )
        self._decoder = Decoder(extract, self._data)
        self._batch_size = batch_size or (1 if jax.default_backend() == "cpu" else 8)
        self._num_threads = num_threads

    @property
    def label_sets(self) -> dict[str, tuple[str, ...]]:
        """{label set: class names}."""
        return self.run.label_sets

    @property
    def multi_label(self) -> tuple[str, ...]:
        """The label sets whose classes have independent probabilities."""
        return self.run.multi_label

    @property
    def model(self) -> LoadedRun:
        """The run's model."""
        return self._model

    @property
    def batch_size(self) -> int:
        """Windows per call of the model."""
        return self._batch_size

    @property
    def clip_sec(self) -> float:
        """Length of a window."""
        return self._data.clip_sec

    def predict_batch(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Classifies clips that the user's program has made.

        Args:
          batch: "video" uint8 [b, t, h, w, 3] and "audio" [b, s, f] raw log-mel of the sizes that
            the run's config.data says; see `avt_jax.axes`. It is compiled anew for another b.

        Returns:
          {label set: probabilities [b, y] float32}.

        Raises:
          UserError: an array of another shape, type or range.
        """
        return self._model.predict(checked_inputs(batch, input_spec(self._data)))

    def predict_file(
        self,
        path: PathLike,
        *,
        hop_sec: float | None = None,
        on_window: Callable[[int, int], None] = lambda done, total: None,
    ) -> FilePrediction:
        """Classifies a file, window by window.

        Memory does not grow with the file's length, but for the probabilities themselves.

        Args:
          path: a video with or without sound, or sound alone.
          hop_sec: from one window to the next; None = the length of a window.
          on_window: called with (windows done, windows in all).

        Returns:
          The `FilePrediction`.

        Raises:
          UserError: the file cannot be decoded, has nothing that the model reads, or hop_sec is not
            positive.
        """
        options = DecodeOptions(self._num_threads)
        found = self._predict([path], hop_sec, options, lambda _, *count: on_window(*count))
        return _only(found)

    def predict_files(
        self,
        paths: Iterable[PathLike],
        *,
        hop_sec: float | None = None,
        num_workers: int = 0,
        time_limit_sec: float | None = None,
    ) -> Generator[tuple[str, FilePrediction | UserError], None, None]:
        """Classifies many files; what is wrong with one is its result and does not end the others.

        Files are decoded ahead, and windows of several files go through the model together.

        Args:
          paths: as for `predict_file`; read one by one.
          hop_sec: from one window to the next; None = the length of a window.
          num_workers: processes that decode, which may crash or hang without harm; 0 = threads of
            this one. The main module of a program that asks for some must be importable without
            side effects (`if __name__ == "__main__":`).
          time_limit_sec: of decoding one window; None = for ever. Needs workers.

        Yields:
          (path, its `FilePrediction` or a `UserError` that says why there is none), in the order of
          the paths.

        Raises:
          UserError: hop_sec is not positive.
        """
        options = DecodeOptions(self._num_threads, num_workers, time_limit_sec)
        yield from self._predict(paths, hop_sec, options, lambda path, done, total: None)

    def embed(self, path: PathLike, *, hop_sec: float | None = None) -> FileEmbedding:
        """Vectors of a file, for search, clustering, or a classifier of one's own.

        Args:
          path: a video with or without sound, or sound alone.
          hop_sec: from one window to the next; None = the length of a window.

        Returns:
          The `FileEmbedding`: for each of the windows that `predict_file` classifies "video",
          "audio" and "fused", of length 1. Video and audio are what the contrastive term compares
          where the model has its projections, so that sound finds pictures; else what the
          classifier sees of each. "fused" is what it sees of both. A model of one modality has its
          vector alone.

        Raises:
          UserError: the file cannot be decoded, has nothing that the model reads, or hop_sec is not
            positive.
        """
        return _only(self._embed([path], hop_sec, DecodeOptions(self._num_threads)))

    def embed_files(
        self,
        paths: Iterable[PathLike],
        *,
        hop_sec: float | None = None,
        num_workers: int = 0,
        time_limit_sec: float | None = None,
    ) -> Generator[tuple[str, FileEmbedding | UserError], None, None]:
        """Vectors of many files; the arguments, order and errors are those of `predict_files`.

        Yields:
          (path, its `FileEmbedding` or a `UserError` that says why there is none).
        """
        options = DecodeOptions(self._num_threads, num_workers, time_limit_sec)
        yield from self._embed(paths, hop_sec, options)

    def embed_batch(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Vectors of clips that the user's program has made.

        Args:
          batch: as for `predict_batch`.

        Returns:
          {"video", "audio", "fused": [b, d] float32}, see `embed`.

        Raises:
          UserError: an array of another shape, type or range.
        """
        return self._model.embed(checked_inputs(batch, input_spec(self._data)))

    def _embed(
        self, paths: Iterable[PathLike], hop_sec: float | None, options: DecodeOptions
    ) -> Generator[tuple[str, FileEmbedding | UserError], None, None]:
        def begin(path: str, spans: Sequence[Span], media: MediaInfo) -> _Embedding:
            return _Embedding(path, media)

        function, undone = self._model.embed, "was not embedded"
        yield from self._run(
            paths, begin, function, hop_sec, options, undone, lambda path, done, total: None
        )

    def _predict(
        self,
        paths: Iterable[PathLike],
        hop_sec: float | None,
        options: DecodeOptions,
        on_window: Callable[[str, int, int], None],
    ) -> Generator[tuple[str, FilePrediction | UserError], None, None]:
        def begin(path: str, spans: Sequence[Span], media: MediaInfo) -> _Prediction:
            return _Prediction(path, spans, media, self.label_sets, self.multi_label)

        # Looked up now: `predict_batch` is public.
        function, undone = self.predict_batch, "was not classified"
        yield from self._run(paths, begin, function, hop_sec, options, undone, on_window)

    def _run(
        self,
        paths: Iterable[PathLike],
        begin: Callable[[str, Sequence[Span], MediaInfo], Collector[T]],
        function: BatchFn,
        hop_sec: float | None,
        options: DecodeOptions,
        undone: str,
        on_window: Callable[[str, int, int], None],
    ) -> Generator[tuple[str, T | UserError], None, None]:
        hop_sec = self.clip_sec if hop_sec is None else hop_sec
        check_hop(hop_sec)

        def plan(path: str, media: MediaInfo) -> tuple[Sequence[Span], Collector[T]]:
            self._check_modality(path, media, undone)
            spans = plan_windows(media.duration_sec, clip_sec=self.clip_sec, hop_sec=hop_sec)
            return spans, begin(path, spans, media)

        job = Job(plan, function, self._batch_size, undone, on_window)
        yield from run_files((os.fspath(path) for path in paths), job, self._decoder, options)

    def _check_modality(self, path: str, media: MediaInfo, undone: str) -> None:
        """Refuses a file that has nothing of what a model of one modality reads."""
        reads = self.run.config["model"].get("modalities", "av")
        missing = {"video": not media.has_video, "audio": not media.has_audio}.get(reads, False)
        if missing:
            what, other = {"video": ("picture", "pictures"), "audio": ("sound", "sound")}[reads]
            raise UserError(
                f"{path} has no {what}, and this model reads {other} alone "
                f"(config.model.modalities={reads}); it {undone}."
            )


class _Prediction:
    """Puts what the model says about a file's windows together."""

    def __init__(
        self,
        path: str,
        spans: Sequence[Span],
        media: MediaInfo,
        label_sets: Mapping[str, tuple[str, ...]],
        multi_label: tuple[str, ...],
    ):
        self._path, self._media, self._label_sets = path, media, dict(label_sets)
        self._multi_label = multi_label
        aspect = media.width_px / max(1, media.height_px) or 1.0
        self._preview = PreviewBuilder(media.duration_sec, spans, aspect=aspect)
        self._windows: list[Window] = []
        self._has_audio = False

    def add(self, record: dict[str, Any], values: Mapping[str, np.ndarray]) -> None:
        """Takes the probabilities of the next window."""
        self._preview.add(len(self._windows), record)
        self._has_audio |= record["has_audio"]
        self._windows.append(Window(record["start_sec"], record["end_sec"], dict(values)))

    def result(self) -> FilePrediction:
        """The prediction for the file."""
        return FilePrediction(
            path=self._path,
            duration_sec=self._media.duration_sec,
            has_audio=self._has_audio,
            has_video=self._media.has_video,
            label_sets=self._label_sets,
            windows=tuple(self._windows),
            overall={
                name: np.mean([window.probabilities[name] for window in self._windows], axis=0)
                for name in self._label_sets
            },
            preview=self._preview.build(),
            multi_label=self._multi_label,
        )


class _Embedding:
    """Puts the vectors of a file's windows together."""

    def __init__(self, path: str, media: MediaInfo):
        self._path, self._media = path, media
        self._windows: list[tuple[float, float, bool]] = []
        self._rows: list[Mapping[str, np.ndarray]] = []

    def add(self, record: dict[str, Any], values: Mapping[str, np.ndarray]) -> None:
        """Takes the vectors of the next window."""
        self._windows.append((record["start_sec"], record["end_sec"], record["has_audio"]))
        self._rows.append(values)

    def result(self) -> FileEmbedding:
        """All of them."""
        start, end, has_audio = zip(*self._windows, strict=True)
        return FileEmbedding(
            self._path,
            np.array(start, np.float64),
            np.array(end, np.float64),
            self._media.has_video,
            np.array(has_audio, bool),
            {name: np.stack([row[name] for row in self._rows]) for name in self._rows[0]},
        )


def _only(found: Iterable[tuple[str, T | UserError]]) -> T:
    """The result of the only file, or its error raised."""
    [(_, result)] = found
    if isinstance(result, UserError):
        raise result
    return result
