"""The config block `data`: what a clip looks like on its way to the model."""

from __future__ import annotations

import dataclasses

from avt_jax.data.records.schema import FBANK_RATE_HZ, MEL_BINS
from avt_jax.errors import UserError
from avt_jax.settings import Block, setting

AUTO_WORKERS = -1
"""Value of `num_workers` that leaves the choice to a trial, see `loading.tune_workers`."""

_MAX_CLIP_SEC = 600.0
_ANY = 1e6


@dataclasses.dataclass(frozen=True)
class DataConfig(Block, where="config.data"):
    """The config block `data`."""

    path: str = setting(
        "shards",
        "shard folder that `avt extract` made, URL of one, or generated:CLIPS:LABELS=CLASSES "
        "for a trial on noise",
    )
    train_split: str = setting(
        "train", "split to train on, or several: train+val, with eval_split=test beside it"
    )
    eval_split: str = setting("val", "split to evaluate on while training")
    balance: str = setting(
        "",
        "name of a label set: training draws each of its classes equally often, and an epoch is as "
        'many draws as the split has clips; "" = every clip once an epoch',
        empty=True,
    )
    num_frames: int = setting(
        16, "frames per clip, spread evenly over clip_sec", at_least=1, at_most=4096
    )
    clip_sec: float = setting(
        8.0,
        "length of a clip in seconds. Of a longer record, training takes a random clip and "
        "evaluation the one in the middle; a shorter one is filled up (last frame held, audio 0.0)",
        at_least=1 / FBANK_RATE_HZ,
        at_most=_MAX_CLIP_SEC,
    )
    frame_size_px: int = setting(
        224, "frames are square with this side, in pixels", at_least=8, at_most=4096
    )
    video_mean: tuple[float, float, float] = setting(
        (0.45, 0.45, 0.45),
        "per RGB channel, of pixels scaled to [0, 1]; subtracted on the device",
        at_least=-_ANY,
        at_most=_ANY,
    )
    video_std: tuple[float, float, float] = setting(
        (0.225, 0.225, 0.225),
        "per RGB channel, of pixels scaled to [0, 1]; divided by on the device",
        at_least=1e-6,
        at_most=_ANY,
    )
    audio_mean: float = setting(
        -4.2677393,
        "of the log-mel values; subtracted on the device. The default is AST's on AudioSet",
        at_least=-_ANY,
        at_most=_ANY,
    )
    audio_std: float = setting(
        4.5689974,
        "of the log-mel values; the result is divided by twice this on the device, as AST does",
        at_least=1e-6,
        at_most=_ANY,
    )
    crop_scale: tuple[float, float] = setting(
        (0.08, 1.0),
        "smallest and largest share of the frame's area that a training crop covers",
        at_least=1e-4,
        at_most=1.0,
        ascending=True,
    )
    crop_aspect: tuple[float, float] = setting(
        (0.75, 1.3333),
        "smallest and largest width / height of a training crop before it is made square",
        at_least=0.01,
        at_most=100.0,
        ascending=True,
    )
    flip: bool = setting(
        True, "mirror half of the training clips; False when left and right decide the class"
    )
    freq_mask_bins: int = setting(
        48, "widest band of mel bins hidden in training; 0 = never", at_least=0, at_most=MEL_BINS
    )
    time_mask_frames: int = setting(
        192,
        "widest span of spectrogram rows hidden in training; 0 = never",
        at_least=0,
        at_most=round(_MAX_CLIP_SEC * FBANK_RATE_HZ),
    )
    eval_clips: int = setting(
        1,
        "clips of each record in an evaluation, spread evenly from its start to its end; 1 = the "
        "one in the middle. The probabilities of all views of a record are averaged",
        at_least=1,
        at_most=1000,
    )
    eval_crops: int = setting(
        1,
        "squares of each frame in an evaluation, spread evenly along its longer side; 1 = the one "
        "in the middle",
        at_least=1,
        at_most=100,
    )
    video_tokens: tuple[int, int] = setting(
        (0, 0),
        "(tokens, width) of a clip's cached video tokens, where config.data.path is a folder that "
        "'avt tokens' made; own:tokens sets it. (0, 0) = none",
        at_least=0,
        at_most=2**20,
    )
    audio_tokens: tuple[int, int] = setting(
        (0, 0), "the same of cached audio tokens", at_least=0, at_most=2**20
    )
    num_threads: int = setting(
        2,
        "threads per process that prepare batches; 0 = in the caller's thread",
        at_least=0,
        at_most=256,
    )
    num_workers: int = setting(
        0,
        "processes that prepare batches beside the main one, each with num_threads threads; "
        "0 = none. Batches come back through shared memory (/dev/shm). -1 = training finds out, by "
        "trying for some seconds, how many of these and of num_threads to take; elsewhere one "
        "thread per core. What is prepared does not depend on any of them",
        at_least=AUTO_WORKERS,
        at_most=256,
    )
    prefetch: int = setting(4, "batches kept ready", at_least=1, at_most=1024)
    max_damaged: int = setting(
        10,
        "different damaged records that a training passes over in each process, taking the next "
        "record instead; one more is an error. Shards are written with checksums, so more than a "
        "few mean a broken disk or copy. 0 = the first one is an error. In evaluation it always is",
        at_least=0,
        at_most=1_000_000,
    )

    def check(self) -> None:
        """Refuses half a shape, and several views of what is cached once."""
        for name in ("video_tokens", "audio_tokens"):
            count, width = getattr(self, name)
            if bool(count) != bool(width):
                raise UserError(
                    f"config.data.{name} is ({count}, {width}); give tokens and width, or (0, 0)."
                )
        if self.is_tokens and self.eval_views > 1:
            raise UserError(
                f"config.data.eval_clips is {self.eval_clips} and eval_crops {self.eval_crops}; of "
                "cached tokens there is one view to evaluate, give 1 and 1."
            )

    @property
    def is_tokens(self) -> bool:
        """Whether cached tokens are read in place of clips."""
        return any(self.video_tokens + self.audio_tokens)

    @property
    def fbank_frames(self) -> int:
        """Spectrogram rows per clip."""
        return round(self.clip_sec * FBANK_RATE_HZ)

    @property
    def eval_views(self) -> int:
        """Views of each record in an evaluation."""
        return self.eval_clips * self.eval_crops
