"""Position embeddings on other grids, against values worked out by hand."""

import numpy as np
import pytest

from avt_jax.models.posemb import adapt_ast_grid, resize_vit_grid


def numbered(rows, columns):
    """Positions whose two features are their row and their column."""
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    return np.stack([row.ravel(), column.ravel()], -1).astype(np.float32)


@pytest.mark.parametrize("adapt", [adapt_ast_grid, resize_vit_grid])
def test_the_same_grid_changes_nothing(adapt, rng):
    positions = rng.normal(size=(12, 3))
    np.testing.assert_array_equal(adapt(positions, (3, 4), (3, 4)), positions)
    with pytest.raises(ValueError, match=r"12 positions do not fill a grid of \(3, 5\)"):
        adapt(positions, (3, 5), (3, 4))


@pytest.mark.parametrize(
    ("old", "new", "rows", "columns"),
    (
        # The authors' own case: of 101 columns, 50 - 64 // 2 = 18 is the first of 64.
        ((12, 101), (12, 64), range(12), range(18, 82)),
        # 6 - 8 // 2 = 2 is the first of 8 rows of 12.
        ((12, 101), (8, 50), range(2, 10), range(25, 75)),
        ((5, 5), (2, 3), range(1, 3), range(1, 4)),
    ),
)
def test_ast_cuts_from_the_middle(old, new, rows, columns):
    found = adapt_ast_grid(numbered(*old), old, new).reshape(*new, 2)
    np.testing.assert_array_equal(found[:, 0, 0], list(rows))
    np.testing.assert_array_equal(found[0, :, 1], list(columns))


def test_ast_interpolates_when_an_axis_grows():
    # Half-pixel centres: from 2 to 4 the weights are 0, 1/4, 3/4, 1; the other axis is cut.
    found = adapt_ast_grid(numbered(4, 2), (4, 2), (2, 4)).reshape(2, 4, 2)
    np.testing.assert_allclose(found[0, :, 1], [0, 0.25, 0.75, 1], atol=1e-6)
    np.testing.assert_array_equal(found[:, 0, 0], [1, 2])
    found = adapt_ast_grid(numbered(2, 3), (2, 3), (4, 3)).reshape(4, 3, 2)
    np.testing.assert_allclose(found[:, 1, 0], [0, 0.25, 0.75, 1], atol=1e-6)


def test_vit_keeps_the_corners():
    found = resize_vit_grid(numbered(2, 3), (2, 3), (3, 5)).reshape(3, 5, 2)
    np.testing.assert_allclose(found[:, 0, 0], [0, 0.5, 1], atol=1e-6)
    np.testing.assert_allclose(found[0, :, 1], [0, 0.5, 1, 1.5, 2], atol=1e-6)
