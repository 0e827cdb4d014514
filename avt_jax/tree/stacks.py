"""Equal layers as one: their arrays stacked, with the number of the layer in front.

A model is built, saved and converted with one entry per layer. A training step gets the layers of
a tower as one `LayerStack` instead, which `models.layers.towers.run_towers` goes through in a loop:
one layer is traced and compiled in place of all, and there are fewer arrays to hand to the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

# What stands for the number of the layer in the path of a stacked array.
EACH = "each"
# Towers of fewer layers stay as they are: a loop over two costs more than it saves.
MIN_DEPTH = 3
# The entries that arrays of so many numbers or fewer share, by kind.
_MAX_SMALL = 2**17
MATRICES, VECTORS, STATISTICS = "small matrices", "small vectors", "small statistics"


class LayerStack(nnx.Module):
    """The layers of a tower, whose arrays have the number of the layer in front.

    Attributes:
      each: one layer with the arrays of all; not to be called.
      drop_path_rates: of the layers.

    Args:
      layers: alike in everything but their arrays' values and `drop_path`. Abstract arrays; the
        first layer is changed.
    """

    def __init__(self, layers: nnx.List[Any]):
        self.each = layers[0]
        self.drop_path_rates = tuple(float(layer.drop_path) for layer in layers)
        self.each.drop_path = 0.0

        def stacked(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((len(layers), *leaf.shape), leaf.dtype)

        nnx.update(self.each, jax.tree.map(stacked, nnx.state(self.each)))

    def __len__(self) -> int:
        return len(self.drop_path_rates)


def stack_layers(model: nnx.Module) -> dict[str, int]:
    """Replaces the lists of equal layers within an abstract model by stacks.

    Returns:
      {path of the stack: number of its layers}.
    """
    found = list(_lists(model))
    for parent, name, layers, _ in found:
        setattr(parent, name, LayerStack(layers))
    return {path: len(layers) for *_, layers, path in found}


def _lists(model: nnx.Module) -> Iterator[tuple[nnx.Module, str, nnx.List[Any], str]]:
    for path, node in nnx.iter_modules(model):
        for name, value in vars(node).items():
            if isinstance(value, nnx.List) and len(value) >= MIN_DEPTH and _alike(value):
                yield node, name, value, "/".join(map(str, (*path, name)))


def _alike(layers: nnx.List[Any]) -> bool:
    if not all(hasattr(layer, "drop_path") for layer in layers):
        return False
    rates = [layer.drop_path for layer in layers]
    for layer in layers:
        layer.drop_path = 0.0
    first, *others = (nnx.split(layer) for layer in layers)
    for layer, rate in zip(layers, rates, strict=True):
        layer.drop_path = rate
    return all(other == first for other in others)


def is_matrix(path: str, shape: tuple[int, ...]) -> bool:
    """Whether an array has two or more dimensions of size > 1; a layer's number counts as none.

    Biases, norm scales, and single tokens stored as [1, 1, d] have one.
    """
    return sum(n > 1 for n in (shape[1:] if f"/{EACH}/" in path else shape)) > 1


class Packing:
    """How flat dictionaries of a model's arrays are packed for a training step, and unpacked.

    Three forms: *flat*, an entry per layer, as models are saved; *stacked*, an entry per tower;
    *packed*, as stacked, with all small arrays of a kind in one. Every array costs the same time to
    hand to the device, and the same time to compile an optimiser's update for.

    Args:
      stacks: {path of a stack: number of its layers}, from `stack_layers`.
      params: {flat path: shape}.
      stats: the same of the running statistics.
    """

    def __init__(
        self,
        stacks: Mapping[str, int],
        params: Mapping[str, jax.ShapeDtypeStruct],
        stats: Mapping[str, jax.ShapeDtypeStruct],
    ):
        self._stacks = dict(stacks)
        self._small: dict[str, dict[str, jax.ShapeDtypeStruct]] = {}
        for group in (params, stats):
            for path, leaf in sorted(jax.eval_shape(self.stack, dict(group)).items()):
                if leaf.size <= _MAX_SMALL and leaf.dtype == jnp.float32:
                    kind = MATRICES if is_matrix(path, leaf.shape) else VECTORS
                    kind = kind if group is params else STATISTICS
                    self._small.setdefault(kind, {})[path] = leaf

    def layers(self, path: str) -> list[str] | None:
        """The flat paths of a stacked one; None for an array that is not stacked."""
        prefix, found, rest = path.partition(f"/{EACH}/")
        if not found or prefix not in self._stacks:
            return None
        return [f"{prefix}/{layer}/{rest}" for layer in range(self._stacks[prefix])]

    def stacked_path(self, path: str) -> str:
        """The stacked path of a flat one."""
        for prefix in self._stacks:
            if path.startswith(f"{prefix}/"):
                _, rest = path.removeprefix(f"{prefix}/").split("/", 1)
                return f"{prefix}/{EACH}/{rest}"
        return path

    def stack(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """Flat to stacked."""
        stacked: dict[str, Any] = {}
        for path in flat:
            to = self.stacked_path(path)
            if to not in stacked:
                layers = self.layers(to)
                one = flat[path]
                stacked[to] = one if layers is None else jnp.stack([flat[p] for p in layers])
        return stacked

    def unstack(self, stacked: Mapping[str, Any]) -> dict[str, Any]:
        """Stacked to flat."""
        flat: dict[str, Any] = {}
        for path, value in stacked.items():
            layers = self.layers(path)
            if layers is None:
                flat[path] = value
            else:
                flat |= {one: value[i] for i, one in enumerate(layers)}
        return flat

    def close(self, stacked: Mapping[str, Any]) -> dict[str, Any]:
        """Stacked to packed."""
        packed = dict(stacked)
        for name, small in self._small.items():
            if small.keys() <= stacked.keys():
                parts = [packed.pop(path).reshape(-1) for path in small]
                packed[name] = jnp.concatenate(parts)
        return packed

    def open(self, packed: Mapping[str, Any]) -> dict[str, Any]:
        """Packed to stacked. Its gradient is packed by `close`."""
        if not self._small.keys() & packed.keys():
            return dict(packed)

        @jax.custom_vjp
        def cut(packed: dict[str, Any]) -> dict[str, Any]:
            return self._cut(packed)

        # Cut backwards, each of the small arrays would be padded to the size of all.
        cut.defvjp(lambda packed: (self._cut(packed), None), lambda _, grad: (self.close(grad),))
        return cut(dict(packed))

    def _cut(self, packed: Mapping[str, Any]) -> dict[str, Any]:
        stacked = {path: value for path, value in packed.items() if path not in self._small}
        for name in self._small.keys() & packed.keys():
            start = 0
            for path, leaf in self._small[name].items():
                stacked[path] = packed[name][start : start + leaf.size].reshape(leaf.shape)
                start += leaf.size
        return stacked

    def pack(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """Flat to packed."""
        return self.close(self.stack(flat))

    def unpack(self, packed: Mapping[str, Any]) -> dict[str, Any]:
        """Packed to flat."""
        return self.unstack(self.open(packed))

    def is_shared(self, path: str) -> bool:
        """Whether this is the path of an entry that holds all small arrays of a group."""
        return path in self._small

    def is_packed(self, arrays: Mapping[str, Any]) -> bool:
        """Whether a dictionary is packed or stacked."""
        return any(p in self._small or self.layers(p) is not None for p in arrays)
