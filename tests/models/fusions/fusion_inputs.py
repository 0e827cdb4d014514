"""What the tests of the fusions share."""

import jax

DIM = 8


def changed(fusion, video_bnd, audio_bmd, *, what):
    """Whether (video, audio) out of `fusion` differ once one input is another."""
    before = fusion(video_bnd, audio_bmd)
    # A random direction: what every channel shares, LayerNorm would take out.
    noise = jax.random.normal(jax.random.key(5), (DIM,))
    if what == "video":
        video_bnd = video_bnd + noise
    else:
        audio_bmd = audio_bmd + noise
    after = fusion(video_bnd, audio_bmd)
    return tuple(bool((a != b).any()) for a, b in zip(after, before, strict=True))
