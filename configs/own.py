"""Own videos, 200 to 5,000 clips: what the shards and the machine say decides the settings.

Reproduces: no paper table. Clip length, frame size, statistics of the sound, length of the training
  and strength of the augmentation come from the training split at config.data.path.
Expects: see docs/own_videos.md for a set of real clips, beside a baseline.
Needs: 2 CPU cores and a quarter of an hour for 1,500 clips; `own:small` and `own:base` an
  accelerator, and better with released weights.
Run:
  avt manifest my_videos --out my_videos/clips.csv
  avt extract --manifest my_videos/clips.csv --out shards
  avt doctor shards
  avt train --config own --workdir runs/mine --config.data.path=shards
  avt evaluate --checkpoint runs/mine
With cached tokens of frozen encoders (docs/finetuning.md):
  avt tokens shards --checkpoint runs/mine --out tokens
  avt train --config own:tokens --workdir runs/rest --config.data.path=tokens
From released weights, or those of a run (docs/finetuning.md):
  avt train --config own:small --workdir runs/fine --config.data.path=shards \\
      --config.init.video=uniformer-s-k400 --config.init.audio=ast-audioset-16
"""

from ml_collections import ConfigDict

from configs import common

# Clips seen in a training of the tiny model: a quarter of an hour on two cores.
_TINY_CLIPS_SEEN = 80_000
# The same of cached tokens, of which a fusion trains in minutes.
_TOKENS_SEEN = 40_000
# The part of a training in which encoders with given weights are held: until then what is new
# learns from tokens that stay as they are, and does not disturb them.
_HELD_SHARE = 0.2


def get_config(arg="", path="shards", init=None):
    """`arg`: "" takes the size for the machine, or "tiny", "small", "base", "smoke".

    "tokens" trains on a folder that `avt tokens` made.

    `path`: the shards, or the tokens; config.data.path.

    `init`: {"video", "audio" or "model": weights}, what config.init is given.
    """
    if arg == "tokens":
        return _on_tokens(path)
    clips = common.sample_clips(path)
    config = common.get_config()
    size = arg
    if arg in ("", "smoke"):
        size = "small" if common.has_accelerator() else "tiny"
    if size == "tiny":
        common.tiny(config)
        config.model.decoders = ()
    elif size == "base":
        config.model.video_encoder.update(variant="B", drop_path=0.3)
    elif size != "small":
        raise ValueError(
            f"unknown argument {arg!r}; own takes none, 'tiny', 'small', 'base' or 'tokens'"
        )
    _read_as_stored(config, clips, size)
    _vary(config, clips)
    # Mixed clips teach a small set more than the contrast of sound and picture does, and exclude
    # it; matching and reconstruction cost more than they give back.
    config.losses.weights.update(contrastive=0.0, matching=0.0, masked_audio=0.0)
    config.losses.label_smoothing = 0.1
    config.optimizer.update(lr=1e-3 if size == "tiny" else 1e-4, min_lr=1e-5, weight_decay=0.1)
    epochs = _TINY_CLIPS_SEEN / clips.num_clips if size == "tiny" else 20_000 / clips.num_clips
    epochs = round(min(100.0, max(10.0, epochs)), 1)
    config.optimizer.warmup_epochs = epochs / 20
    config.train.update(
        batch_size=min(16, clips.num_clips),
        eval_batch_size=40,
        epochs=epochs,
        eval_every_epochs=epochs / 20,
        log_every_epochs=epochs / 40,
    )
    _spare_given_weights(config, init or {})
    return common.finish(config, "smoke" if arg == "smoke" else "", clips.label_sets)


def _spare_given_weights(config, init):
    """Encoders with given weights are held at first, then trained more slowly than what is new."""
    given = [name for name in ("video", "audio") if name in init or "model" in init]
    if not given:
        return
    # "video_encoder/" of AVT; of MBT the tower, "video/".
    part = f"^{given[0] if len(given) == 1 else '(video|audio)'}(_encoder)?/"
    config.optimizer.held = (part,)
    config.optimizer.held_epochs = round(_HELD_SHARE * config.train.epochs, 2)
    if len(given) == 2:
        # As MAE's models are fine-tuned.
        config.optimizer.layer_decay = 0.75
    else:
        # By layers, the other encoder, which begins at random, would be slowed down as well.
        config.optimizer.lr_scale_rules = ((part, 0.1),)
    if "video" in given:
        # Running statistics of millions of clips, in place of those of batches of 16.
        config.model.video_encoder.freeze_bn = True


def _read_as_stored(config, clips, size):
    """Length, frames and sizes of a clip."""
    most_sec = 4.0 if size == "tiny" else 8.0
    clip_sec = round(min(clips.length_sec, most_sec), 2)
    stored = max(1, int(clip_sec * clips.frame_rate_hz))
    side_px = 64 if size == "tiny" else 224
    config.data.update(
        clip_sec=clip_sec,
        # UniFormer halves the frames at once.
        num_frames=max(2, min(stored, 8 if size == "tiny" else 16) // 2 * 2),
        frame_size_px=side_px,
    )
    if clips.audio_mean is not None:
        config.data.update(
            audio_mean=round(clips.audio_mean, 3), audio_std=round(clips.audio_std, 3)
        )


def _vary(config, clips):
    """The fewer clips there are, the more they are varied."""
    few = clips.num_clips < 5_000
    config.data.update(
        crop_scale=(0.35, 1.0) if few else (0.5, 1.0),
        flip=True,
        freq_mask_bins=24,
        time_mask_frames=round(10 * config.data.clip_sec),
    )
    for encoder in (config.model.video_encoder, config.model.audio_encoder):
        encoder.drop_path = encoder.get("drop_path", 0.0) or 0.1
    if few:
        config.mixing.mixup_alpha = 0.3


def _on_tokens(path):
    """Fusion, projections and heads of the encoders' own config, without decoders."""
    tokens, num_clips = common.read_tokens(path)
    config = common.get_config()
    config.model = ConfigDict(dict(tokens.config["model"]))
    config.model.decoders = ()
    for name in ("video", "audio"):
        config.model[f"{name}_encoder"] = ConfigDict(dict(name="tokens", variant="cached"))
    config.data = ConfigDict(dict(tokens.config["data"]))
    config.data.path = path
    config.data.update({f"{name}_tokens": shape for name, shape in tokens.shapes.items()})
    config.losses.weights.update(contrastive=0.0, matching=0.0, masked_audio=0.0)
    config.losses.label_smoothing = 0.1
    config.optimizer.update(lr=1e-3, min_lr=1e-5, weight_decay=0.1)
    epochs = round(min(100.0, max(10.0, _TOKENS_SEEN / num_clips)), 1)
    config.optimizer.warmup_epochs = epochs / 20
    config.train.update(
        batch_size=min(16, num_clips),
        eval_batch_size=40,
        epochs=epochs,
        eval_every_epochs=epochs / 20,
        log_every_epochs=epochs / 40,
    )
    return config.lock()
