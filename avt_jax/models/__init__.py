"""Models in Flax NNX: encoders, bottleneck fusion, heads, and the AVT that joins them."""
