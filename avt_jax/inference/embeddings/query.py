"""What is looked for in an index, and whether it can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avt_jax.errors import UserError
from avt_jax.inference.embeddings.reader import Index
from avt_jax.inference.embeddings.search import Searcher
from avt_jax.inference.embeddings.vectors import PROJECTED, Rows

_WORDS = {"av": "fused", "video": "video", "audio": "audio"}


@dataclass(frozen=True)
class Query:
    """Something to look for.

    Attributes:
      name: of the file or clip.
      vector_d: [d].
    """

    name: str
    vector_d: np.ndarray


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
      name: of the query.
      rows: [k] int of the index, best first.
      cosines: [k] float64.
    """

    name: str
    rows: np.ndarray
    cosines: np.ndarray


def choose(index: Index, by: str | None) -> tuple[str, str]:
    """(vector of the query, vector of the index), each "av", "video" or "audio".

    Args:
      index: to be searched.
      by: such as "audio-video"; None = av-av, or the one modality that there is.

    Raises:
      UserError: the index does not have these vectors, or they are not in one space.
    """
    there = [word for word, name in _WORDS.items() if name in index.rows.vectors]
    one, other = (there[0], there[0]) if by is None else by.split("-")
    for word in (one, other):
        if word not in there:
            raise UserError(
                f"{index.path} has no {_WORDS[word]} vectors, which --by {by} compares; it has "
                f"{', '.join(there)}, give one of these with itself."
            )
    if one != other and index.about.kind != PROJECTED:
        raise UserError(
            f"the model that made {index.path} has no space that sound and picture share, so "
            f"--by {by} says nothing; give av-av, video-video or audio-audio."
        )
    return one, other


def compared(index: Index, by: tuple[str, str]) -> str | None:
    """A warning where the two spaces were never brought together."""
    if by[0] == by[1] or index.about.compared:
        return None
    return (
        f"the run {index.about.run} was trained without the contrastive term, so sound and picture "
        "were never compared: what is found is no better than chance"
    )


def check_weights(index: Index, weights: str, what: str) -> None:
    """Makes sure that queries are of the model that made the index.

    Raises:
      UserError: they are not.
    """
    if weights != index.about.weights:
        raise UserError(
            f"{index.path} was made by another checkpoint (step {index.about.step} of "
            f"{index.about.run}) than {what}, and their vectors do not compare; give that run with "
            "--checkpoint and --step, or make the index anew."
        )


def of_file(rows: Rows, word: str) -> Query:
    """A file's query: the mean of its windows' vectors.

    Raises:
      UserError: the file does not have the modality.
    """
    name, path = _WORDS[word], rows.text["id"][0]
    has_n = rows.has(name)
    if not has_n.any():
        raise UserError(f"{path} has no {name}, by which it is to be searched.")
    return Query(path, rows.vectors[name][has_n].mean(0, dtype=np.float64))


def of_index(index: Index, word: str) -> list[Query]:
    """A query for each row that has the modality."""
    name = _WORDS[word]
    vector_nd, ids = index.rows.vectors[name], index.rows.text["id"]
    return [
        Query(ids[row], vector_nd[row]) for row in np.flatnonzero(index.rows.has(name)).tolist()
    ]


def search(index: Index, queries: Sequence[Query], word: str, top: int) -> list[Found]:
    """The rows of an index that are most like each query.

    Args:
      index: to be searched; rows that do not have the modality are not found.
      queries: at least one.
      word: vector of the index: "av", "video" or "audio".
      top: how many, >= 1.

    Raises:
      UserError: no row has the modality, or the vectors are of another length.
    """
    name = _WORDS[word]
    row_n = np.flatnonzero(index.rows.has(name))
    if not len(row_n):
        raise UserError(f"no row of {index.path} has {name}; search by another modality.")
    searcher = Searcher(index.rows.vectors[name][row_n], row_n)
    widths = {len(query.vector_d) for query in queries}
    if widths != {index.rows.vectors[name].shape[1]}:
        raise UserError(
            f"{index.path} has {name} vectors of {index.rows.vectors[name].shape[1]} numbers and "
            f"the queries have {', '.join(map(str, sorted(widths)))}; make both with one run."
        )
    found = searcher.search(np.stack([query.vector_d for query in queries]), top)
    return [
        Found(query.name, rows, cosines)
        for query, rows, cosines in zip(queries, *found, strict=True)
    ]
