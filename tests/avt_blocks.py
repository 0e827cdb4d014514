"""A config block of an AVT small enough to compile in seconds."""

from avt_jax.models.inputs import InputSpec

SPEC = InputSpec(num_frames=4, frame_size_px=32, fbank_frames=48, mel_bins=32)
CLASSES = {"verb": 3, "noun": 5}


def block(**changes):
    """The config block `model`; `changes` replace its fields."""
    return {
        "name": "avt",
        "modalities": "av",
        "dim": 8,
        "num_heads": 2,
        "mlp_ratio": 2.0,
        "fusion": "bottleneck",
        "num_blocks": 2,
        "num_bottleneck": 4,
        "exchange": "average",
        "head": "concat",
        "projection_dim": 6,
        "temperature": 0.07,
        "drop_path": 0.0,
        "precision": "float32",
        "contrastive_bias": -10.0,
        "decoders": (),
        "decoder_dim": 8,
        "decoder_depth": 1,
        "decoder_heads": 2,
        "video_encoder": {
            "name": "uniformer",
            "variant": "tiny",
            "depth": (1, 1, 1, 1),
            "dim": (4, 4, 8, 8),
            "head_dim": 4,
        },
        "audio_encoder": {
            "name": "ast",
            "variant": "tiny",
            "dim": 12,
            "depth": 1,
            "num_heads": 2,
        },
    } | changes
