"""The search is that of float64 through all vectors, ties and all."""

import numpy as np
import pytest

from avt_jax.errors import UserError
from avt_jax.inference.embeddings import search
from avt_jax.inference.embeddings.search import Searcher


def brute_force(query_qd, vector_nd, top):
    """The lower row first where cosines agree within 1e-12."""
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300) for x in (
        query_qd.astype(np.float64), vector_nd.astype(np.float64)
    )]  # fmt: skip
    cosine_qn = unit[0] @ unit[1].T
    order = np.argsort(-np.round(cosine_qn, 12), axis=1, kind="stable")[:, :top]
    return order, np.take_along_axis(cosine_qn, order, 1)


def check(query_qd, vector_nd, top):
    rows, cosines = Searcher(vector_nd).search(query_qd, top)
    want, want_cosines = brute_force(query_qd, vector_nd, top)
    np.testing.assert_array_equal(rows, want)
    # Both are float64; a sum of d products is rounded d times at most.
    np.testing.assert_allclose(cosines, want_cosines, rtol=0, atol=1e-13)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(search, "_CHUNK", 256)


@pytest.mark.parametrize(
    ("queries", "count", "dim", "top"),
    [(1, 1, 3, 5), (3, 255, 16, 7), (9, 1000, 64, 10), (70, 700, 8, 1), (2, 300, 4, 300)],
)
def test_random_vectors(queries, count, dim, top):
    rng = np.random.default_rng(count)
    vector_nd = rng.normal(size=(count, dim)).astype(np.float32)
    check(rng.normal(size=(queries, dim)).astype(np.float32), vector_nd, top)


def test_ties_go_by_row():
    rng = np.random.default_rng(1)
    few = rng.normal(size=(3, 16)).astype(np.float32)
    vector_nd = few[rng.integers(0, 3, 900)]
    # More of the same than the first look returns: the first ones are still found.
    check(few, vector_nd, 20)
    rows, cosines = Searcher(vector_nd).search(few[:1], 20)
    assert (np.diff(rows[0]) > 0).all() and np.ptp(cosines[0]) < 1e-12


def test_vectors_that_float32_cannot_tell_apart():
    rng = np.random.default_rng(2)
    base = rng.normal(size=64)
    base /= np.linalg.norm(base)
    vector_nd = (base + 3e-7 * rng.normal(size=(800, 64))).astype(np.float32)
    check(base[None].astype(np.float32), vector_nd, 10)


def test_lengths_do_not_matter_and_zeros_are_far_from_all():
    vector_nd = np.array([[0, 0], [2, 0], [0, 5], [-3, 0], [1, 1]], np.float32)
    rows, cosines = Searcher(vector_nd).search(np.array([[7.0, 0.0]]), 5)
    assert rows.tolist() == [[1, 4, 0, 2, 3]]
    np.testing.assert_allclose(cosines, [[1, np.sqrt(0.5), 0, 0, -1]], atol=1e-15)


def test_rows_have_their_own_numbers():
    rows, _ = Searcher(np.eye(3, dtype=np.float32), np.array([5, 9, 7])).search(np.eye(3), 1)
    assert rows.tolist() == [[5], [9], [7]]


def test_queries_of_another_length():
    with pytest.raises(UserError, match=r"vectors \(4,\), the index has \(3,\)"):
        Searcher(np.eye(3, dtype=np.float32)).search(np.ones((1, 4)), 1)
