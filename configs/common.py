"""What the recipes share: the defaults, and the changes that `:smoke` makes.

A recipe starts from `get_config()` and changes what it needs. The fields with their defaults,
meaning and ranges are declared in the dataclasses of `avt_jax`; `avt config RECIPE --doc` prints
them all.
"""

from ml_collections import ConfigDict

from avt_jax.experiment.own_clips import has_accelerator, read_tokens, sample_clips
from avt_jax.experiment.parts import default_config
from avt_jax.models.build import recipe_block

__all__ = [
    "AUDIO_STATISTICS",
    "audioset",
    "finish",
    "get_config",
    "has_accelerator",
    "mbt",
    "read_tokens",
    "sample_clips",
    "tiny",
]

# Mean and standard deviation of a data set's log-mels, for config.data.audio_mean and audio_std.
# AudioSet and ESC-50: AST's authors; VGGSound: CAV-MAE's authors.
AUDIO_STATISTICS = {
    "audioset": (-4.2677393, 4.5689974),
    "esc50": (-6.6268077, 5.358466),
    "vggsound": (-5.081, 4.4849),
}


def get_config() -> ConfigDict:
    """The defaults: AVT with UniFormer-S and AST-Base, K = L = 4."""
    config = ConfigDict(default_config(), convert_dict=True)
    for encoder in (config.model.video_encoder, config.model.audio_encoder):
        encoder.drop_path = 0.1
    return config


def mbt(config: ConfigDict) -> ConfigDict:
    """Replaces the model by MBT-Base and the training by its published recipe (arXiv:2107.00135).

    8 frames and 8 s of sound; bottleneck from layer 8. Judged as published with
    `avt evaluate --clips 4`.
    """
    config.model = ConfigDict(recipe_block("mbt"))
    config.model.update(tubelet_frames=1, drop_path=0.3, precision="bfloat16")
    config.data.update(
        num_frames=8, clip_sec=8.0, video_mean=(0.5, 0.5, 0.5), video_std=(0.5, 0.5, 0.5)
    )
    config.losses.weights.update(contrastive=0.0, matching=0.0, masked_audio=0.0)
    config.losses.label_smoothing = 0.3
    config.mixing.mixup_alpha = 0.5
    config.optimizer.update(
        name="sgd", lr=0.5, warmup_epochs=2.5, warmup_lr=0.0, min_lr=0.0, weight_decay=0.0
    )
    config.train.update(batch_size=64, eval_batch_size=64, epochs=50.0)
    return config


def audioset(config: ConfigDict) -> ConfigDict:
    """AudioSet's sound, and its loss on the scale on which MBT's was published.

    The sigmoid loss is a mean over the classes, Scenic's is their sum, hence the weight of 527. It
    also puts the loss beside the other terms, which are of a few nats.
    """
    mean, std = AUDIO_STATISTICS["audioset"]
    config.data.update(audio_mean=mean, audio_std=std, freq_mask_bins=48, time_mask_frames=150)
    config.losses.weights.classification = 527.0
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    """Shrinks the model to one that a CPU trains from scratch in minutes."""
    shared = dict(dim=64, num_heads=4, mlp_ratio=3.0, drop_path=0.0, precision="float32")
    if config.model.name == "mbt":
        config.model.update(depth=4, fusion_layer=2, **shared)
        return config
    config.model.update(
        num_blocks=2, projection_dim=64, decoder_dim=32, decoder_depth=1, decoder_heads=2, **shared
    )
    _take_variant(config, "tiny")
    return config


def _shallow(config: ConfigDict) -> None:
    """One block of each kind: it compiles several times faster."""
    if config.model.name == "mbt":
        config.model.update(depth=2, fusion_layer=1)
        return
    config.model.num_blocks = 1
    _take_variant(config, "smoke")


def _take_variant(config: ConfigDict, variant: str) -> None:
    for name in ("video_encoder", "audio_encoder"):
        config.model[name] = ConfigDict(dict(name=config.model[name].name, variant=variant))


def finish(
    config: ConfigDict, arg: str, label_sets: dict[str, int], multi_label: tuple[str, ...] = ()
) -> ConfigDict:
    """Applies the argument after the colon and locks the config.

    Args:
      config: the recipe's config.
      arg: "" for the recipe as it is, "smoke" for a few steps of a tiny model on generated clips.
      label_sets: {label set: number of classes} for the generated clips.
      multi_label: those of which a clip has any number of classes.

    Raises:
      ValueError: any other argument.
    """
    if arg == "smoke":
        marks = {name: "+" for name in multi_label}
        sets = ",".join(f"{k}={number}{marks.get(k, '')}" for k, number in label_sets.items())
        tiny(config)
        _shallow(config)
        config.data.update(
            path=f"generated:10:{sets}", num_frames=4, clip_sec=1.0, frame_size_px=32
        )
        config.train.update(
            batch_size=8, eval_batch_size=8, steps=3, log_every_steps=1, eval_every_steps=3
        )
        config.train.update(log_every_epochs=0.0, eval_every_epochs=0.0)
        if config.optimizer.held:
            config.optimizer.update(held_steps=1, held_epochs=0.0)
    elif arg:
        raise ValueError(f"unknown argument {arg!r}; a recipe takes none, or 'smoke'")
    return config.lock()
