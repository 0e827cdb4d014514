"""Exact cosine search: coarsely on the device, chunk by chunk, and the best ones in float64."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from avt_jax.errors import UserError

_CHUNK = 16_384
# Queries are filled up to one of these numbers, so that few programs are compiled.
_BATCHES = (1, 8, 64)
_TIE = 1e-12


class Searcher:
    """Vectors on the device, ready to be searched.

    Args:
      vector_nd: [n, d] float32, n and d >= 1; their lengths do not matter.
      row_n: [n] int, what a vector is called in the results; None = its place.
    """

    def __init__(self, vector_nd: np.ndarray, row_n: np.ndarray | None = None):
        self._vector_nd = vector_nd
        self._row_n = np.arange(len(vector_nd)) if row_n is None else np.asarray(row_n)
        count, dim = vector_nd.shape
        size = min(_CHUNK, count)
        self._chunks = []
        for first in range(0, count, size):
            chunk_cd = np.zeros((size, dim), np.float32)
            part = vector_nd[first : first + size]
            chunk_cd[: len(part)] = _unit(part)
            self._chunks.append((np.int32(first), np.int32(len(part)), jax.device_put(chunk_cd)))

    def search(self, query_qd: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The most similar vectors: those of a search through all of them in float64.

        Args:
          query_qd: [q, d], of any length but 0.
          top: how many, >= 1; fewer where there are fewer vectors.

        Returns:
          (rows [q, k] int, cosines [q, k] float64), best first. Cosines that agree within 1e-12 are
          ties: the lower row comes first.

        Raises:
          UserError: the queries are of another length.
        """
        if query_qd.ndim != 2 or query_qd.shape[1] != self._vector_nd.shape[1]:
            raise UserError(
                f"the query has vectors {query_qd.shape[1:]}, the index has "
                f"{self._vector_nd.shape[1:]}; make both with one run."
            )
        rows, cosines = [], []
        for first in range(0, len(query_qd), _BATCHES[-1]):
            found = self._some(_unit(query_qd[first : first + _BATCHES[-1]]), top)
            rows.append(found[0])
            cosines.append(found[1])
        return np.concatenate(rows), np.concatenate(cosines)

    def _some(self, query_qd: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        count, dim = self._vector_nd.shape
        top = min(top, count)
        # Rounding of a sum of d products of which the absolute values add up to 1 at most.
        error = (dim + 16) * 2.0**-23
        width = min(count, 2 ** (2 * top + 15).bit_length())
        while True:
            coarse_qw, place_qw = self._coarse(query_qd.astype(np.float32), width)
            exact = [
                self._exact(query_d, place_w)
                for query_d, place_w in zip(query_qd, place_qw, strict=True)
            ]
            # What was not among the coarse ones is below the least of them, or as good.
            last_q = np.array([cosine_w[top - 1] for _, cosine_w in exact])
            if width == count or (coarse_qw[:, -1] + 2 * error < last_q - _TIE).all():
                break
            width = min(count, 4 * width)
        places = np.stack([place_w[:top] for place_w, _ in exact])
        return self._row_n[places], np.stack([cosine_w[:top] for _, cosine_w in exact])

    def _coarse(self, query_qd: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The best by float32: (cosines [q, width], places [q, width])."""
        count = len(query_qd)
        batch = next(size for size in _BATCHES if size >= count)
        filled = np.zeros((batch, query_qd.shape[1]), np.float32)
        filled[:count] = query_qd
        best = (
            jnp.full((batch, width), -jnp.inf, jnp.float32),
            jnp.zeros((batch, width), jnp.int32),
        )
        for first, length, chunk_cd in self._chunks:
            best = _merge(*best, chunk_cd, first, length, filled)
        cosine_qw, place_qw = jax.device_get(best)
        return cosine_qw[:count], place_qw[:count]

    def _exact(self, query_d: np.ndarray, place_w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(places, cosines) in order, in float64."""
        cosine_w = np.einsum("wd,d->w", _unit(self._vector_nd[place_w]), query_d)
        order = np.lexsort((place_w, -np.round(cosine_w / _TIE)))
        return place_w[order], cosine_w[order]


def _unit(vector_nd: np.ndarray) -> np.ndarray:
    """Float64 of length 1; zeros stay."""
    vector_nd = vector_nd.astype(np.float64)
    norm_n1 = np.linalg.norm(vector_nd, axis=1, keepdims=True)
    return np.asarray(vector_nd / np.where(norm_n1 > 0, norm_n1, 1))


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _merge(
    best_qw: jax.Array,
    place_qw: jax.Array,
    chunk_cd: jax.Array,
    first: jax.Array,
    length: jax.Array,
    query_qd: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The best of what was found so far and of a chunk, of which `length` rows are there."""
    width, size = best_qw.shape[1], chunk_cd.shape[0]
    cosine_qc = jnp.dot(query_qd, chunk_cd.T, precision=jax.lax.Precision.HIGHEST)
    cosine_qc = jnp.where(jnp.arange(size) < length, cosine_qc, -jnp.inf)
    own_qk, index_qk = jax.lax.top_k(cosine_qc, min(width, size))
    both = jnp.concatenate([best_qw, own_qk], 1)
    places = jnp.concatenate([place_qw, index_qk + first], 1)
    best_qw, chosen_qw = jax.lax.top_k(both, width)
    return best_qw, jnp.take_along_axis(places, chosen_qw, 1)
