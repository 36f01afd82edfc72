"""Confusions of an evaluation: counts by true and predicted class, their order, the worst pairs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MAX_STORED = 20_000  # cells of a matrix in report.json, those with the most images
MAX_ORDERED = 2000  # classes that are clustered: more would take seconds
_MAX_OPTIMAL = 200  # classes whose dendrogram is also turned so that neighbors are similar


class Cell(NamedTuple):
    """Number of images of the class ``label`` that were predicted as ``predicted``, not 0."""

    label: int
    predicted: int
    examples: int


class Pair(NamedTuple):
    """A confusion by the names of both classes, with its share of the images of ``label``."""

    label: str
    predicted: str
    examples: int
    share: float


@dataclass(frozen=True)
class Confusions:
    """A confusion matrix by its cells.

    Attributes:
      names: the outputs of the network.
      totals: images of each, 0 for those that no image has.
      cells: cells that are not 0; of many only those with the most images.
      order: the outputs in the order in which to show them.
    """

    names: Sequence[str]
    totals: Sequence[int]
    cells: Sequence[Cell]
    order: Sequence[int]

    def share(self, cell: Cell) -> float:
        """Return the share of the true class that a cell has."""
        return cell.examples / max(1, self.totals[cell.label])

    @property
    def omitted(self) -> int:
        """Images in cells that are left out."""
        return sum(self.totals) - sum(cell.examples for cell in self.cells)

    def worst(self, most: int) -> list[Pair]:
        """Return the confusions with the most images; of equal ones those of the smaller class."""
        wrong = [cell for cell in self.cells if cell.label != cell.predicted]
        wrong.sort(key=lambda cell: (-cell.examples, -self.share(cell)))
        return [
            Pair(self.names[c.label], self.names[c.predicted], c.examples, self.share(c))
            for c in wrong[:most]
        ]


def matrix_cells(matrix: Sequence[Sequence[int]] | np.ndarray) -> list[Cell]:
    """Return the cells of a matrix that are not 0; of many those with the most images."""
    matrix = np.asarray(matrix)
    rows, columns = np.nonzero(matrix)
    counts = matrix[rows, columns]
    if len(counts) > MAX_STORED:
        kept = np.sort(np.argsort(-counts, kind="stable")[:MAX_STORED])
        rows, columns, counts = rows[kept], columns[kept], counts[kept]
    return [Cell(*row) for row in zip(*(a.tolist() for a in (rows, columns, counts)), strict=True)]


def clustered_order(totals: Sequence[int], cells: Iterable[Cell]) -> list[int]:
    """Return the classes in an order in which those that are confused lie side by side.

    The order is that of the leaves of a hierarchical clustering with average linkage (Sokal and
    Michener 1958). Two classes are the closer the larger the shares are with which one is predicted
    for the other. Classes without confusions follow in their own order.

    Args:
      totals: images of each class, at most :data:`MAX_ORDERED` classes.
      cells: cells of the confusion matrix.
    """
    size = len(totals)
    similarity = np.zeros((size, size))
    for label, predicted, examples in cells:
        if label != predicted:
            share = examples / max(1, totals[label])
            similarity[label, predicted] += share
            similarity[predicted, label] += share
    confused = np.flatnonzero(similarity.any(axis=1))
    others = np.setdiff1d(np.arange(size), confused).tolist()
    if len(confused) < 3 or size > MAX_ORDERED:
        return [*confused.tolist(), *others] if size <= MAX_ORDERED else list(range(size))

    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    similarity = similarity[np.ix_(confused, confused)]
    distance = 1 - similarity / similarity.max()
    np.fill_diagonal(distance, 0)
    condensed = squareform(distance, checks=False)
    tree = linkage(condensed, "average", optimal_ordering=len(confused) <= _MAX_OPTIMAL)
    return [*confused[leaves_list(tree)].tolist(), *others]
