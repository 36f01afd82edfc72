"""Collection of what an evaluation in tiles counts in each picture."""

import numpy as np

from train.data.tiled_masks import TiledMasks
from train.engine.predictions import PredictionCollector
from train.tasks.base import BaseTask


class TileCollector(PredictionCollector):
    """Collector that adds up the pixels of the tiles of each picture.

    Args:
      task: what the network learns; what it collects can be added.
      outputs: number of outputs of the network.
      source: the tiles.
    """

    def __init__(self, task: BaseTask, outputs: int, source: TiledMasks):
        super().__init__(task, outputs)
        self._pictures = np.array([number for number, _ in source.places])
        first = np.unique(self._pictures, return_index=True)[1]
        self._is_first = np.zeros(len(source), bool)
        self._is_first[first] = True
        self._is_tile = np.array([tile is not None for _, tile in source.places])

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the sums of the tiles of each picture whose first tile is valid."""
        arrays = super().arrays()
        tile = arrays.pop("record")
        record, index = np.unique(self._pictures[tile], return_inverse=True)
        valid = np.isin(record, self._pictures[tile[self._is_first[tile]]])
        sums = {"record": record[valid]}
        for name, array in arrays.items():
            total = np.zeros((len(record), *array.shape[1:]), np.int64)
            np.add.at(total, index, array)
            sums[name] = total[valid]
        return sums

    def count_pictures(self) -> dict[str, int]:
        """Return the numbers of evaluated ``examples``, of ``tiled`` and, if any, ``bad`` ones."""
        valid = self.arrays()["record"]
        tiled = np.isin(valid, self._pictures[self._is_tile]).sum()
        bad = self._is_first.sum() - len(valid)
        counts = {"examples": len(valid), "tiled": int(tiled)}
        return counts | ({"bad": int(bad)} if bad else {})
