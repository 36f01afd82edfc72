"""Nearest neighbors by cosine similarity: exact, and in blocks that bound the memory."""

import numpy as np

_QUERIES, _BLOCK = 1024, 8192  # rows that are compared at once: 32 MiB of similarities


def nearest(
    queries: np.ndarray,
    references: np.ndarray,
    count: int,
    query_ids: np.ndarray | None = None,
    reference_ids: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest references of each query by cosine similarity.

    Args:
      queries: ``(N, D)``.
      references: ``(M, D)``.
      count: number of neighbors of a query; at most M are returned.
      query_ids: numbers ``(N,)``; a reference with the query's number is not its neighbor.
      reference_ids: numbers ``(M,)``.

    Returns:
      Indices of references, int ``(N, count)``, the most similar first, and the similarities in
      -1…1, float32 ``(N, count)``: -inf where there are no more references.
    """
    queries, references = unit_rows(queries), unit_rows(references)
    count = min(count, len(references))
    indices = np.empty((len(queries), count), int)
    similarities = np.empty((len(queries), count), np.float32)
    for start in range(0, len(queries), _QUERIES):
        rows = slice(start, start + _QUERIES)
        parts = []
        for first in range(0, len(references), _BLOCK):
            columns = slice(first, first + _BLOCK)
            block = np.clip(queries[rows] @ references[columns].T, -1, 1)
            if query_ids is not None:
                block[query_ids[rows, None] == reference_ids[None, columns]] = -np.inf
            index, similarity = _largest(block, count)
            parts.append((first + index, similarity))
        candidates, similarity = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        order, similarities[rows] = _largest(similarity, count)
        indices[rows] = np.take_along_axis(candidates, order, axis=1)
    return indices, similarities


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Return rows of length 1, float32 ``(N, D)``; a row of zeros stays one."""
    features = np.asarray(features, np.float32)
    # Scaled first, since the squares of large values overflow.
    features = features / np.maximum(np.abs(features).max(axis=1, keepdims=True), 1e-30)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-30)


def _largest(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the ``count`` largest values of each row, descending, and these."""
    positions = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    if count < values.shape[1]:
        positions = np.sort(np.argpartition(-values, count - 1, axis=1)[:, :count], axis=1)
        values = np.take_along_axis(values, positions, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return tuple(np.take_along_axis(array, order, axis=1) for array in (positions, values))
