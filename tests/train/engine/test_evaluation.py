"""Evaluation counts every example once."""

import numpy as np
import pytest

from train.config.loading import default_config
from train.data.splits import ALL
from train.engine.devices import Pmap
from train.engine.evaluation import evaluate
from train.engine.other_data import OtherData
from train.runtime.errors import UsageError
from train.tasks.task import Task

TASK = Task(None, None, {})


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

    result = evaluate(TASK, devices, step, None, None, Five(), batch_size=8)
    assert result == {"examples": 6, "top1": 0.5, "loss": 1.5}
    Source.class_names += ("f",)
    assert evaluate(TASK, devices, step, None, None, Five(), batch_size=8)["top5"] == 1
    Five.__len__ = lambda self: 7
    with pytest.raises(AssertionError, match="6 examples and skipped 0 of 7"):
        evaluate(TASK, devices, step, None, None, Five(), batch_size=8)


def test_arrays_of_integers_are_added_beyond_32_bits():
    class Counting(Task):
        def means(self, totals, classes):
            return {"top1": totals["counts"].tolist()}

    def step(state, data, batch, stop):
        sums = {"examples": np.int32(4), "bad": np.int32(0)}
        return devices.replicate(sums | {"counts": np.array([2**31 - 1, 1], np.int32)})

    devices, task = Pmap(), Counting(None, None, {})
    result = evaluate(task, devices, step, None, None, Batches(12), batch_size=4)
    assert result["top1"] == [3 * (2**31 - 1), 3]


class Batches:
    """A split of 18 images, in batches of four."""

    class source:
        class_names = ("a", "b")

    def __init__(self, size=18):
        self.size = size

    def __len__(self):
        return self.size

    def eval_batches(self, batch_size):
        for start in range(0, self.size, batch_size):
            yield {"index": np.arange(start, start + batch_size)}


def summing(devices, size=18):
    """Return a step that counts images below ``size``, of which every third is bad."""

    def step(state, data, batch, stop):
        index = np.asarray(batch["index"]).ravel()
        index = index[index < size]
        sums = {"examples": (index % 3 > 0).sum(), "bad": (index % 3 == 0).sum()}
        sums |= {"top1": (index % 3 == 1).sum(), "top5": 0, "loss": np.float32(index.sum())}
        return devices.replicate(sums | {"per_example": {"index": index}})

    return step


@pytest.mark.parametrize("size", [3, 4, 18])
def test_sums_and_examples_of_all_batches_are_collected_in_order(size):
    devices, collected, seen = Pmap(), [], []

    def collect(examples):
        assert examples.keys() == {"index"}
        collected.extend(examples["index"])

    result = evaluate(
        TASK, devices, summing(devices, size), None, None, Batches(size), 4, collect=collect,
        progress=lambda batches: map(lambda batch: seen.append(1) or batch, batches),
    )  # fmt: skip
    assert collected == list(range(size)) and len(seen) == -(-size // 4)
    bad = -(-size // 3)
    assert result == {
        "examples": size - bad, "bad": bad, "top1": -(-(size - 1) // 3) / (size - bad),
        "loss": sum(range(size)) / (size - bad),
    }  # fmt: skip


def test_evaluation_that_is_given_up_has_no_result():
    devices, finished, flags = Pmap(), [], iter(range(9))

    def step(state, data, batch, stop):
        return summing(devices)(state, data, batch, stop) | {"flag": stop}

    def give_up(result):
        finished.append(result and result["flag"])
        return result is not None

    loader = Batches(40)
    result = evaluate(
        TASK, devices, step, None, None, loader, 4, give_up=give_up, flag=lambda: next(flags)
    )
    assert result is None
    assert finished == [None] * 4 + [0]  # the first step, once five are in flight


def test_other_data_replace_the_runs_split(tmp_path):
    def applied(other, name="folder"):
        dataset = default_config().dataset
        dataset.update(name=name, data_dir="/own", eval_split="test")
        return other.apply(dataset), dataset.name, dataset.data_dir, other.is_other_dataset

    for place in ("plain/cat", "split/train/cat", "split/val/cat"):
        (tmp_path / place).mkdir(parents=True)
    plain, split = str(tmp_path / "plain"), str(tmp_path / "split")
    assert applied(OtherData()) == ("test", "folder", "/own", False)
    assert applied(OtherData(split="val")) == ("val", "folder", "/own", False)
    assert applied(OtherData(dataset="mnist"), "mnist") == ("test", "mnist", "/own", True)
    assert applied(OtherData(dataset="mnist")) == ("test", "mnist", "", True)
    assert applied(OtherData(data_dir=split)) == ("test", "folder", split, True)
    assert applied(OtherData(data_dir=plain)) == (ALL, "folder", plain, True)
    assert applied(OtherData("val", "", plain)) == ("val", "folder", plain, True)
    assert applied(OtherData("", "folder", plain), "mnist") == (ALL, "folder", plain, True)
    assert applied(OtherData(data_dir=plain), "mnist") == ("test", "mnist", plain, True)
    with pytest.raises(UsageError, match="needs --data_dir"):
        applied(OtherData(dataset="folder"), "mnist")
    with pytest.raises(UsageError, match="segmentation_folder needs --data_dir"):
        applied(OtherData(dataset="segmentation_folder"), "mnist")
