"""Classification heads over fused tokens, for one or several label sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from avt_jax.models.layers import linear
from avt_jax.models.layers.norms import LayerNorm


class ClassificationHead(nnx.Module):
    """LayerNorm and mean over each modality's tokens, then logits.

    Args:
      dim: width of the tokens.
      num_classes: {label set: number of classes}.
      modalities: those the model has, of "video" and "audio".
      kind: "concat": one linear layer per label set over the concatenated means; "average": one
        linear layer per modality and label set, logits averaged, as in MBT.
      rngs: for the initial weights.

    The head computes in float32 whatever the precision of the model: it is small, and the softmax
    behind it is sensitive.
    """

    def __init__(
        self,
        dim: int,
        num_classes: Mapping[str, int],
        *,
        modalities: Sequence[str],
        kind: str = "concat",
        rngs: nnx.Rngs,
    ):
        self.modalities = tuple(modalities)
        self.kind = kind
        for name in self.modalities:
            setattr(self, f"{name}_norm", LayerNorm(dim))
        groups = ["joint"] if kind == "concat" else list(self.modalities)
        width = dim * len(self.modalities) if kind == "concat" else dim
        self.layers = nnx.Dict(
            {
                group: nnx.Dict(
                    {
                        name: linear(width, classes, dtype=jnp.float32, rngs=rngs)
                        for name, classes in num_classes.items()
                    }
                )
                for group in groups
            }
        )

    def pool(self, tokens: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """{modality: [b, n, d]} to {modality: [b, d]}: final norm, then mean, in float32."""
        return {
            name: getattr(self, f"{name}_norm")(tokens_bnd.astype(jnp.float32)).mean(1)
            for name, tokens_bnd in tokens.items()
        }

    def __call__(self, pooled: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """{modality: [b, d]} from `pool` to {label set: logits [b, y]}.

        A modality that is not given counts as zeros in the concatenation ("concat"), and not at all
        in the mean ("average").
        """
        if self.kind == "concat":
            nothing = jnp.zeros_like(next(iter(pooled.values())))
            parts = [pooled.get(name, nothing) for name in self.modalities]
            pooled = {"joint": jnp.concatenate(parts, -1)}
        logits = [
            {name: layer(features_bd) for name, layer in self.layers[group].items()}
            for group, features_bd in pooled.items()
        ]
        return jax.tree.map(lambda *parts: sum(parts) / len(parts), *logits)
