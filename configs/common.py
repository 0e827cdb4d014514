"""Every field of a config with its default, and the changes that `:smoke` makes.

A recipe starts from `get_config()` and changes what it needs. The blocks feed the frozen
dataclasses named beside them, which document the fields and refuse unknown ones.
"""

from ml_collections import ConfigDict

# Mean and standard deviation of a data set's log-mels, for config.data.audio_mean and audio_std.
# AudioSet and ESC-50: AST's authors; VGGSound: CAV-MAE's authors.
AUDIO_STATISTICS = {
    "audioset": (-4.2677393, 4.5689974),
    "esc50": (-6.6268077, 5.358466),
    "vggsound": (-5.081, 4.4849),
}


def get_config() -> ConfigDict:
    """The defaults: AVT with UniFormer-S and AST-Base, K = L = 4."""
    return ConfigDict(
        dict(
            seed=0,
            # avt_jax.data.loading.config.DataConfig
            data=dict(
                path="shards",
                train_split="train",
                eval_split="val",
                num_frames=16,
                clip_sec=8.0,
                frame_size_px=224,
                video_mean=(0.45, 0.45, 0.45),
                video_std=(0.225, 0.225, 0.225),
                audio_mean=AUDIO_STATISTICS["audioset"][0],
                audio_std=AUDIO_STATISTICS["audioset"][1],
                crop_scale=(0.08, 1.0),
                crop_aspect=(0.75, 1.3333),
                flip=True,
                freq_mask_bins=48,
                time_mask_frames=192,
                eval_clips=1,
                eval_crops=1,
                num_threads=2,
                num_workers=0,
                prefetch=4,
                max_damaged=10,
            ),
            # avt_jax.models.avt.AVTConfig
            model=dict(
                name="avt",
                modalities="av",
                dim=768,
                num_heads=12,
                mlp_ratio=4.0,
                fusion="bottleneck",
                num_blocks=4,  # K
                num_bottleneck=4,  # L
                exchange="average",
                head="concat",
                projection_dim=256,
                temperature=0.07,
                contrastive_bias=-10.0,  # of the sigmoid form only
                drop_path=0.1,
                decoders=("audio",),  # modalities that can be reconstructed
                decoder_dim=256,
                decoder_depth=2,
                decoder_heads=4,
                precision="bfloat16",
                video_encoder=dict(name="uniformer", variant="S", drop_path=0.1, remat=False),
                audio_encoder=dict(name="ast", variant="base", stride=16, drop_path=0.1),
            ),
            # avt_jax.conversion.initial.InitConfig: where training starts from, "" for random
            # weights; folders that `avt convert` wrote, for `model` also a run folder.
            init=dict(video="", audio="", model=""),
            # avt_jax.losses.objective.ObjectiveConfig
            losses=dict(
                weights=dict(
                    classification=1.0,
                    contrastive=0.5,
                    matching=0.1,
                    masked_audio=0.01,
                    masked_video=0.0,
                ),
                label_smoothing=0.1,
                temperature_min=0.01,
                temperature_max=0.5,
                contrastive_form="softmax",
                matching_same_label=False,
                warmup_steps=0,
            ),
            # avt_jax.audio.masking.MaskingConfig: what the reconstruction terms hide
            masking=dict(
                strategy="activity",
                ratio=0.5,
                chunk_sec=0.32,
                band_bins=16,
                video_ratio=0.75,
                shared_pass=False,
            ),
            # avt_jax.audio.activity.ActivityConfig: what counts as an activity
            activity=dict(
                smoothing_sec=0.05,
                edge_db=3.0,
                high_db=3.0,
                low_db=2.5,
                rise_db=3.0,
                silence_db=6.0,
                max_activity_sec=5.0,
                max_edge_activity_sec=1.5,
                min_gap_sec=0.1,
                min_activity_sec=0.15,
            ),
            # avt_jax.training.mixing.MixingConfig: off; needs losses other than classification off
            mixing=dict(mixup_alpha=0.0, cutmix_alpha=0.0, cutmix_share=0.5),
            # avt_jax.training.optimizer.OptimizerConfig
            optimizer=dict(
                name="adamw",
                lr=1e-4,
                warmup_epochs=10.0,
                warmup_lr=1e-6,
                min_lr=1e-6,
                weight_decay=0.05,
                b1=0.9,
                b2=0.999,
                momentum=0.9,  # sgd only
                clip_norm=1.0,
                ema_decay=0.0,
            ),
            # avt_jax.training.loop.TrainConfig
            train=dict(
                batch_size=32,
                eval_batch_size=32,
                epochs=100.0,
                steps=0,
                log_every_steps=50,
                eval_every_steps=0,
                checkpoint_every_steps=0,
                keep_last=2,
                keep_best=1,
            ),
            # avt_jax.training.mesh.MeshConfig
            mesh=dict(data=-1, fsdp=1, rules=((".*", "replicate"),)),
        )
    )


def mbt(config: ConfigDict) -> ConfigDict:
    """Replaces the model by MBT-Base and the training by its published recipe (arXiv:2107.00135).

    8 frames and 8 s of sound; bottleneck from layer 8. Judged as published with
    `avt evaluate --clips 4`.
    """
    # avt_jax.models.mbt.MBTConfig
    config.model = ConfigDict(
        dict(
            name="mbt",
            modalities="av",
            dim=768,
            depth=12,
            num_heads=12,
            mlp_ratio=4.0,
            patch_px=16,
            tubelet_frames=1,
            fusion="bottleneck",
            fusion_layer=8,
            num_bottleneck=4,
            share_encoder=False,
            classifier="token",
            test_with_bottlenecks=True,
            drop_path=0.3,
            remat=False,
            precision="bfloat16",
        )
    )
    config.data.update(
        num_frames=8, clip_sec=8.0, video_mean=(0.5, 0.5, 0.5), video_std=(0.5, 0.5, 0.5)
    )
    config.losses.update(
        weights=dict(config.losses.weights, contrastive=0.0, matching=0.0, masked_audio=0.0),
        label_smoothing=0.3,
    )
    config.mixing.mixup_alpha = 0.5
    config.optimizer.update(
        name="sgd", lr=0.5, warmup_epochs=2.5, warmup_lr=0.0, min_lr=0.0, weight_decay=0.0
    )
    config.train.update(batch_size=64, eval_batch_size=64, epochs=50.0)
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
    config.model.video_encoder = ConfigDict(
        dict(name="uniformer", variant="tiny", drop_path=0.0, remat=False)
    )
    config.model.audio_encoder = ConfigDict(
        dict(name="ast", variant="tiny", stride=16, drop_path=0.0)
    )
    return config


def _shallow(config: ConfigDict) -> None:
    """One block of each kind: it compiles several times faster."""
    if config.model.name == "mbt":
        config.model.update(depth=2, fusion_layer=1)
        return
    config.model.num_blocks = 1
    config.model.video_encoder.depth = (1, 1, 1, 1)
    config.model.audio_encoder.depth = 1


def finish(config: ConfigDict, arg: str, label_sets: dict[str, int]) -> ConfigDict:
    """Applies the argument after the colon and locks the config.

    Args:
      config: the recipe's config.
      arg: "" for the recipe as it is, "smoke" for a few steps of a tiny model on generated clips.
      label_sets: {label set: number of classes} for the generated clips.

    Raises:
      ValueError: any other argument.
    """
    if arg == "smoke":
        sets = ",".join(f"{name}={number}" for name, number in label_sets.items())
        tiny(config)
        _shallow(config)
        config.data.update(
            path=f"generated:10:{sets}", num_frames=4, clip_sec=1.0, frame_size_px=32
        )
        config.train.update(
            batch_size=8, eval_batch_size=8, steps=3, log_every_steps=1, eval_every_steps=3
        )
    elif arg:
        raise ValueError(f"unknown argument {arg!r}; a recipe takes none, or 'smoke'")
    return config.lock()
