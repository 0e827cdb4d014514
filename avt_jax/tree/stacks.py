"""Equal layers as one: their arrays stacked, with the number of the layer in front.

A model is built, saved and converted with one entry per layer. A training step gets the layers of
a tower as one `LayerStack` instead, which `models.layers.towers.run_towers` goes through in a loop:
one layer is traced and compiled in place of all, and there are fewer arrays to hand to the device.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

# What stands for the number of the layer in the path of a stacked array.
EACH = "each"
# Towers of fewer layers stay as they are: a loop over two costs more than it saves.
MIN_DEPTH = 3
# The entries that arrays of so many numbers or fewer share, by kind.
_MAX_SMALL = 2**17
MATRICES, VECTORS, STATISTICS = "small matrices", "small vectors", "small statistics"
# The same of parameters that are not trained.
_FROZEN = {MATRICES: "small frozen matrices", VECTORS: "small frozen vectors"}


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
      frozen: flat paths of parameters that are not trained.
    """

    def __init__(
        self,
        stacks: Mapping[str, int],
        params: Mapping[str, jax.ShapeDtypeStruct],
        stats: Mapping[str, jax.ShapeDtypeStruct],
        frozen: Collection[str] = (),
    ):
        self._stacks = dict(stacks)
        self._small: dict[str, dict[str, jax.ShapeDtypeStruct]] = {}
        self._frozen = frozenset(frozen)
        # Of towers that are frozen in part: 0 for the parameters that are.
        self._trained: dict[str, float] = {}
        for path in params if frozen else ():
            if not self.is_frozen(path):
                self._trained[path] = float(path not in self._frozen)
        for group in (params, stats):
            for path, leaf in sorted(jax.eval_shape(self.stack, dict(group)).items()):
                if leaf.size <= _MAX_SMALL and leaf.dtype == jnp.float32:
                    kind = MATRICES if is_matrix(path, leaf.shape) else VECTORS
                    kind = kind if group is params else STATISTICS
                    if group is params and self.is_frozen(path):
                        kind = _FROZEN[kind]
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
        """Stacked to packed; what differs in shape from the model's arrays stays stacked."""
        packed = dict(stacked)
        for name, small in self._small.items():
            if all(p in stacked and stacked[p].shape == one.shape for p, one in small.items()):
                parts = [packed.pop(path).reshape(-1) for path in small]
                packed[name] = jnp.concatenate(parts)
        return packed

    def open(self, packed: Mapping[str, Any]) -> dict[str, Any]:
        """Packed to stacked. Its gradient is packed, too."""
        stacked = {path: value for path, value in packed.items() if path not in self._small}
        # In an order that every process has: the programs of all must be the same.
        for name in filter(packed.__contains__, self._small):
            stacked |= self._cut(name, packed[name])
        return stacked

    def _cut(self, name: str, shared: Any) -> dict[str, Any]:
        def parts(shared: Any) -> dict[str, Any]:
            found, start = {}, 0
            for path, leaf in self._small[name].items():
                found[path] = shared[start : start + leaf.size].reshape(leaf.shape)
                start += leaf.size
            return found

        def backward(_: None, grads: dict[str, Any]) -> tuple[Any]:
            return (jnp.concatenate([grads[path].reshape(-1) for path in self._small[name]]),)

        # Cut backwards, each of the small arrays would be padded to the size of all.
        cut = jax.custom_vjp(parts)
        cut.defvjp(lambda shared: (parts(shared), None), backward)
        found: dict[str, Any] = cut(shared)
        return found

    def pack(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """Flat to packed."""
        return self.close(self.stack(flat))

    def unpack(self, packed: Mapping[str, Any]) -> dict[str, Any]:
        """Packed to flat."""
        return self.unstack(self.open(packed))

    def is_shared(self, path: str) -> bool:
        """Whether this is the path of an entry that holds all small arrays of a group."""
        return path in self._small

    def is_frozen(self, path: str) -> bool:
        """Whether nothing of an entry, flat, stacked or packed, is trained.

        A layer's parameter is frozen with those of its tower or not at all: see `masked`.
        """
        if self.is_shared(path):
            return path in _FROZEN.values()
        layers = self.layers(self.stacked_path(path)) or [path]
        return self._frozen.issuperset(layers)

    def divide(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(those that are trained, those that are not); flat, stacked or packed."""
        frozen = {path: value for path, value in params.items() if self.is_frozen(path)}
        return {path: value for path, value in params.items() if path not in frozen}, frozen

    def masked(self, grads: Mapping[str, Any]) -> dict[str, Any]:
        """A gradient with 0 for the frozen layers of towers that have others, too."""
        if all(self._trained.values()):
            return dict(grads)
        return {
            path: grad * self.spread(self._trained, path, grad.ndim) for path, grad in grads.items()
        }

    def spread(self, values: Mapping[str, float], path: str, ndim: int) -> float | np.ndarray:
        """What multiplies an entry, if each parameter has a number.

        Args:
          values: {flat path: number}.
          path: of the entry, flat, stacked or packed.
          ndim: of the entry's array.

        Returns:
          One number, or float32 that broadcasts to the entry.
        """
        if path in self._small:
            pieces = [self._per_layer(values, one) for one in self._small[path]]
            sizes = [leaf.size for leaf in self._small[path].values()]
            each = [np.repeat(v, n // len(v)) for v, n in zip(pieces, sizes, strict=True)]
            found = np.concatenate(each)
        else:
            found = self._per_layer(values, path).reshape(-1, *(1,) * (ndim - 1))
        return float(found.flat[0]) if (found == found.flat[0]).all() else found

    def _per_layer(self, values: Mapping[str, float], path: str) -> np.ndarray:
        return np.array([values[one] for one in self.layers(path) or [path]], np.float32)

    def is_packed(self, arrays: Mapping[str, Any]) -> bool:
        """Whether a dictionary is packed or stacked."""
        return any(p in self._small or self.layers(p) is not None for p in arrays)
