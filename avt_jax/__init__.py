"""avt_jax: the Audio-Video Transformer (AVT, arXiv:2401.04154) in JAX and Flax NNX."""

__version__ = "0.1.0"
