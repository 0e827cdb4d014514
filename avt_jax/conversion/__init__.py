"""Released weights of UniFormer, AST, ViT and MBT in our models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from avt_jax import tree
from avt_jax.conversion import ast, mapping, mbt, uniformer, vit
from avt_jax.conversion.hints import Hints
from avt_jax.conversion.store import Converted
from avt_jax.errors import UserError, nearest

StateDict = Mapping[str, np.ndarray]
_NO_HINTS = Hints()


class Kind(Protocol):
    """What the module of a kind of weights holds; `config` is the config of its model."""

    @property
    def FITS(self) -> tuple[type[nnx.Module], ...]:
        """Modules that a training may start from these weights; () = only as a whole model."""

    @property
    def TOLD(self) -> tuple[str, ...]:
        """Fields of the config that the shapes of arrays do not tell."""

    @property
    def MODEL_TYPE(self) -> str:
        """What Hugging Face's config.json calls such a model; "" = it has none that we read."""

    def infer(self, state_dict: StateDict, hints: Hints = ..., /) -> Any:
        """The config that official weights are of."""

    def grid(self, config: Any, state_dict: StateDict, mel_bins: int, /) -> tuple[int, ...]:
        """Patches along each axis that the learned positions are for; () where there are none."""

    def build(self, config: Any, state_dict: StateDict, dtype: DTypeLike, /) -> nnx.Module:
        """The model that the weights are of."""

    def rules(self, config: Any, state_dict: StateDict, /) -> Sequence[mapping.Rule]:
        """Official name to path of ours."""

    def adapt(
        self,
        found: mapping.Variables,
        converted: Converted,
        shapes: mapping.Shapes,
        grid: tuple[int, ...],
        /,
    ) -> list[str]:
        """Brings `found`, the weights of a module in `FITS`, to its input, in place.

        `grid` has the module's tokens along each axis. Returns what was done, in words.
        """


# name -> module. A new kind of weights is one line here.
KINDS: dict[str, Kind] = {"uniformer": uniformer, "ast": ast, "vit": vit, "mbt": mbt}


def check_kind(name: str) -> None:
    """Refuses an unknown kind of weights.

    Raises:
      UserError: names the nearest known one.
    """
    if name not in KINDS:
        raise UserError(
            f"{name!r} is no kind of weights{nearest(name, KINDS)}; give one of {', '.join(KINDS)}."
        )


def infer_config(name: str, state_dict: StateDict, hints: Hints = _NO_HINTS) -> Any:
    """The config that official weights are of.

    What neither weights nor hints tell is taken as published: heads 64 wide (UniFormer, AST), of
    AST's strides the one that the positions are for, MBT's fusion from layer 8.

    Args:
      name: "uniformer", "ast", "vit" or "mbt".
      state_dict: {official name: array}.
      hints: what is known beside the weights.

    Returns:
      The model's config dataclass.

    Raises:
      UserError: an unknown name, or weights of something else.
    """
    check_kind(name)
    try:
        return KINDS[name].infer(state_dict, hints)
    except KeyError as error:
        raise UserError(
            f"these are no {name} weights: {error.args[0]} is missing; check the kind."
        ) from error
    except (IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"these are no {name} weights: an array has too few axes.") from error


def convert(
    name: str, state_dict: StateDict, config: Any, *, dtype: DTypeLike | None = None
) -> tuple[tree.Skeleton[nnx.Module], dict[str, np.ndarray], list[str]]:
    """Official weights to flat variables of ours.

    Args:
      name: "uniformer", "ast", "vit" or "mbt".
      state_dict: {official name: array}.
      config: the model's config dataclass; it has to describe the weights.
      dtype: of parameters and computation; None is float64 where `jax_enable_x64` is on, else
        float32.

    Returns:
      (skeleton, variables, left_out): the model's structure; {path: array}, parameters and
      statistics together; the official names that have no use here.

    Raises:
      UserError: an unknown name, or weights that do not fit: what is missing, left over or of
        another shape is listed.
    """
    check_kind(name)
    kind = KINDS[name]
    if dtype is None:
        dtype = jnp.result_type(float)
    skeleton = tree.Skeleton(lambda: kind.build(config, state_dict, dtype))
    shapes = {path: leaf.shape for path, leaf in (skeleton.params | skeleton.stats).items()}
    variables, left_out = mapping.convert(kind.rules(config, state_dict), state_dict, shapes)
    return skeleton, {path: value.astype(dtype) for path, value in variables.items()}, left_out


def from_state_dict(
    name: str, state_dict: StateDict, config: Any = None, *, dtype: DTypeLike | None = None
) -> nnx.Module:
    """A model with official weights, in evaluation mode.

    Number of classes and positions are those of the weights. Intermediate results come from the
    model's own methods: `UniFormer.stages` and `features`, `AST.all_tokens` and `features`,
    `ViT.all_tokens`, `MBT.encode` and `fuse`.

    Args:
      name: "uniformer", "ast", "vit" or "mbt".
      state_dict: {official name: array}; for mbt, names are `/`-joined Flax paths.
      config: `UniFormerConfig`, `ASTConfig`, `ViTConfig` or `MBTConfig`, describing the weights;
        None reads the sizes off them and takes the rest as published, see `infer_config`.
      dtype: of parameters and computation; None is float64 where `jax_enable_x64` is on, else
        float32.

    Returns:
      The module: `uniformer(video_bthwc)`, `ast(fbank_bsf)`, `vit(video_bthwc)` and
      `mbt(video_bthwc, spectrogram)` give logits [b, y].

    Raises:
      UserError: weights that do not fit the config; what is missing, left over or of another shape
        is listed.
    """
    if config is None:
        config = infer_config(name, state_dict)
    skeleton, variables, _ = convert(name, state_dict, config, dtype=dtype)
    variables = jax.device_put(variables)
    return skeleton.merge(
        {path: variables[path] for path in skeleton.params},
        {path: variables[path] for path in skeleton.stats},
    )
