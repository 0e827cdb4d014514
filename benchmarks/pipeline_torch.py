"""The work of the training input, done the usual way with PyTorch: DataLoader and PIL.

The steps are torchvision's. It is not needed itself: on a PIL image its RandomResizedCrop is a crop
and a bilinear resize.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from avt_jax.data import records
from avt_jax.data.loading import augment_video, sampling
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.records import FBANK_RATE_HZ


class ClipDataset(torch.utils.data.IterableDataset):
    """Endless varied clips of a shard folder, each worker its own share."""

    def __init__(self, config: DataConfig, seed: int):
        """Takes the shards and the settings from the config."""
        self._config = config
        self._seed = seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self._seed, worker.id if worker else 0])
        # The same reader for both sides. It is opened here because it may not be forked.
        source = records.open_split(self._config.path, self._config.train_split)
        while True:
            for index in rng.permutation(len(source)):
                yield self._example(source.read_lazily(int(index)), rng)

    def _example(self, record, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, int]:
        config = self._config
        rate_hz, frames = record["frame_rate_hz"], record["frames"]
        room_sec = max(0.0, record["end_sec"] - record["start_sec"] - config.clip_sec)
        start_sec = rng.uniform(0, room_sec)
        chosen = sampling.frame_indices(
            start_sec, config, frame_rate_hz=rate_hz, num_stored=len(frames)
        )
        images = [Image.open(io.BytesIO(frames[i])).convert("RGB") for i in chosen]
        box = augment_video.random_box(
            images[0].height,
            images[0].width,
            rng,
            scale=config.crop_scale,
            aspect=config.crop_aspect,
        )
        corners = (box.left, box.top, box.left + box.width, box.top + box.height)
        side = (config.frame_size_px, config.frame_size_px)
        images = [image.crop(corners).resize(side, Image.BILINEAR) for image in images]
        if rng.integers(2):
            images = [image.transpose(Image.FLIP_LEFT_RIGHT) for image in images]
        video = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        first = round(start_sec * FBANK_RATE_HZ)
        audio = torch.zeros(config.fbank_frames, 128)
        stored = torch.from_numpy(record["fbank"][first : first + config.fbank_frames].copy())
        audio[: len(stored)] = stored
        width = int(rng.integers(config.freq_mask_bins + 1))
        start = int(rng.integers(128 - width + 1))
        audio[:, start : start + width] = 0
        width = int(rng.integers(config.time_mask_frames + 1))
        start = int(rng.integers(config.fbank_frames - width + 1))
        audio[start : start + width] = 0
        return video, audio, record["labels"]["label"]


def torch_batches(config: DataConfig, *, batch_size: int, num_workers: int, seed: int) -> Iterator:
    """Endless (video uint8 [b, t, h, w, 3], audio float32 [b, s, f], label [b])."""
    loader = torch.utils.data.DataLoader(
        ClipDataset(config, seed),
        batch_size=batch_size,
        num_workers=num_workers,
        prefetch_factor=2 if num_workers else None,
        multiprocessing_context="spawn" if num_workers else None,
    )
    return iter(loader)
