"""Classifies raw video files of any length with a trained run."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from avt_jax import axes
from avt_jax.data.extraction.clip_record import ExtractConfig, make_record
from avt_jax.data.loading.sampling import eval_example
from avt_jax.data.media.container import DecodeError, probe
from avt_jax.errors import UserError
from avt_jax.inference.load import BatchFn, LoadedRun
from avt_jax.inference.prediction import FilePrediction, Window
from avt_jax.inference.windows import PreviewBuilder, plan_windows, read_ahead
from avt_jax.training.inputs import checked_inputs, input_spec

# Why a later window may have no frame although the file goes on: its sound lasts longer.
_PICTURES_END = ("span_past_end", "unreadable")

Example = tuple[dict[str, Any], dict[str, Any]]  # a record and the model input made of it


class Predictor:
    """A trained run that classifies raw files.

    A window of a file goes through the same decoding, JPEG and spectrogram code as a clip in the
    shards, so the model sees what it saw in training.

    Args:
      run_dir: what `avt train --workdir` wrote.
      step: "best" or "last" checkpoint.
      batch_size: windows per call of the model; None = 1 on a CPU, 8 on an accelerator.
      num_threads: windows decoded at the same time.
      say: is told when the model is compiled, which the first windows wait for; None = nobody.

    Raises:
      UserError: no such run, or it cannot be loaded.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str],
        *,
        step: str = "best",
        batch_size: int | None = None,
        num_threads: int = 2,
        say: Callable[[str], None] | None = None,
    ):
        self._model = LoadedRun(Path(run_dir), step, say)
        self.run, self._data = self._model.run, self._model.data
        self._extract = ExtractConfig(
            frame_rate_hz=self.run.records["frame_rate_hz"],
            short_side_px=int(self.run.records["short_side_px"]),
            jpeg_quality=int(self.run.records["jpeg_quality"]),
            # A window is as long as the run's clips, whatever an extraction's limit.
            max_clip_sec=self._data.clip_sec + 1.0,
        )
        self._batch_size = batch_size or (1 if jax.default_backend() == "cpu" else 8)
        self._num_threads = num_threads

    @property
    def label_sets(self) -> dict[str, tuple[str, ...]]:
        """{label set: class names}."""
        return self.run.label_sets

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
        path: str | os.PathLike[str],
        *,
        hop_sec: float | None = None,
        on_window: Callable[[int, int], None] = lambda done, total: None,
    ) -> FilePrediction:
        """Classifies a file, window by window.

        Memory does not grow with the file's length, but for the probabilities themselves.

        Args:
          path: a video with or without sound.
          hop_sec: from one window to the next; None = the length of a window.
          on_window: called with (windows done, windows in all).

        Returns:
          The `FilePrediction`.

        Raises:
          UserError: the file cannot be decoded, or hop_sec is not positive.
        """
        path = os.fspath(path)
        hop_sec = self.clip_sec if hop_sec is None else hop_sec
        try:
            media = probe(path)
            spans = plan_windows(media.duration_sec, clip_sec=self.clip_sec, hop_sec=hop_sec)
            preview = PreviewBuilder(
                media.duration_sec, spans, aspect=media.width_px / max(1, media.height_px) or 1.0
            )
            windows, has_audio = self._predict_windows(path, spans, preview, on_window)
        except DecodeError as error:
            raise UserError(f"{error.message}; it was not classified.") from error
        overall = {
            name: np.mean([window.probabilities[name] for window in windows], axis=0)
            for name in self.label_sets
        }
        return FilePrediction(
            path=path,
            duration_sec=media.duration_sec,
            has_audio=has_audio,
            label_sets=self.label_sets,
            windows=tuple(windows),
            overall=overall,
            preview=preview.build(),
        )

    def embed_file(
        self, path: str | os.PathLike[str], *, hop_sec: float | None = None
    ) -> dict[str, np.ndarray]:
        """Features of a file, for search, clustering, or a classifier of one's own.

        Args:
          path: a video with or without sound.
          hop_sec: from one window to the next; None = the length of a window.

        Returns:
          {modality: [windows, d] float32}, what the run's classifier sees of each modality, with
          one row for each of the windows that `predict_file` classifies.

        Raises:
          UserError: the file cannot be decoded, or hop_sec is not positive.
        """
        path = os.fspath(path)
        hop_sec = self.clip_sec if hop_sec is None else hop_sec
        try:
            spans = plan_windows(probe(path).duration_sec, clip_sec=self.clip_sec, hop_sec=hop_sec)
            found = [
                {name: value[: len(records)] for name, value in values.items()}
                for records, values in self._run(path, spans, self._model.embed)
            ]
        except DecodeError as error:
            raise UserError(f"{error.message}; it was not embedded.") from error
        return {name: np.concatenate([values[name] for values in found]) for name in found[0]}

    def _predict_windows(
        self,
        path: str,
        spans: Sequence[tuple[float, float]],
        preview: PreviewBuilder,
        on_window: Callable[[int, int], None],
    ) -> tuple[list[Window], bool]:
        windows: list[Window] = []
        has_audio = False
        for records, found in self._run(path, spans, self.predict_batch):
            for index, record in enumerate(records, start=len(windows)):
                preview.add(index, record)
                has_audio |= record["has_audio"]
            windows += [
                Window(
                    record["start_sec"],
                    record["end_sec"],
                    {name: p_by[row] for name, p_by in found.items()},
                )
                for row, record in enumerate(records)
            ]
            on_window(len(windows), len(spans))
        return windows, has_audio

    def _run(
        self, path: str, spans: Sequence[tuple[float, float]], function: BatchFn
    ) -> Iterator[tuple[list[dict[str, Any]], dict[str, np.ndarray]]]:
        """Yields (records, what the model makes of them) of a few windows at a time.

        The arrays may have more rows than there are records: batches are padded.
        """
        with (
            ThreadPoolExecutor(self._num_threads) as pool,
            contextlib.closing(self._examples(pool, path, spans)) as examples,
        ):
            while group := list(itertools.islice(examples, self._batch_size)):
                found = function(self._batch([element for _, element in group]))
                if not all(np.isfinite(values).all() for values in found.values()):
                    raise UserError(
                        f"what the model makes of {path} is not finite; its parameters are "
                        "broken, use an earlier checkpoint."
                    )
                yield [record for record, _ in group], found

    def _examples(
        self, pool: Executor, path: str, spans: Sequence[tuple[float, float]]
    ) -> Generator[Example, None, None]:
        """Yields the windows in order, decoded in the pool; ends where the pictures end."""

        def decode(span: tuple[float, float]) -> Example:
            try:
                record = make_record(path, *span, config=self._extract, id=path, source=path)
                # Nobody knows the classes of a raw file.
                return record, eval_example(record | {"labels": {}}, self._data)
            except DecodeError:
                raise
            except Exception as error:  # whatever a hostile file provokes in a codec
                reason = f"{type(error).__name__}: {error}"
                raise DecodeError("unexpected", f"{path} cannot be decoded ({reason})") from error

        depth = self._batch_size + self._num_threads
        with contextlib.closing(read_ahead(pool, decode, spans, depth=depth)) as decoded:
            for index in itertools.count():
                try:
                    example = next(decoded, None)
                except DecodeError as error:
                    if index and error.reason_code in _PICTURES_END:
                        return
                    raise
                if example is None:
                    return
                yield example

    def _batch(self, elements: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Stacks elements, padded to the one batch size that the model is compiled for."""
        padded = elements + elements[-1:] * (self._batch_size - len(elements))
        return {
            key: np.stack([element[key] for element in padded])
            for key in (axes.VIDEO, axes.AUDIO, axes.HAS_AUDIO)
        }
