"""Evaluation counts every example once."""

import numpy as np
import pytest

from train.engine.devices import Pmap
from train.engine.evaluation import evaluate


def test_top5_is_omitted_below_six_classes():
    class Source:
        class_names = ("a", "b", "c", "d", "e")

    class Five:
        source = Source

        def __len__(self):
            return 6

        def eval_batches(self, batch_size):
            yield {"valid": np.arange(batch_size) < 6}

    devices = Pmap()

    def step(state, data, batch, stop):
        ones = devices.replicate({"examples": np.int32(6), "bad": np.int32(0), "top1": np.int32(3)})
        return ones | devices.replicate({"top5": np.int32(6), "loss": np.float32(9)})

    result = evaluate(devices, step, None, None, Five(), batch_size=8)
    assert result == {"examples": 6, "top1": 0.5, "loss": 1.5}
    Source.class_names += ("f",)
    assert evaluate(devices, step, None, None, Five(), batch_size=8)["top5"] == 1
    Five.__len__ = lambda self: 7
    with pytest.raises(AssertionError, match="6 examples and skipped 0 of 7"):
        evaluate(devices, step, None, None, Five(), batch_size=8)
