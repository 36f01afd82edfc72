"""Model FLOPs utilization: for known devices only, and in all outputs of metrics."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from flax_resnet import create_model
from train.config.loading import default_config
from train.data.augment.joint import JointAugment
from train.data.augment.pipeline import Augment
from train.data.preprocessing import make_preprocessing
from train.engine.devices import Devices
from train.engine.meter import Meter
from train.engine.mfu import mfu_per_image, peak_flops
from train.reporting.console import Console
from train.reporting.loggers.tensorboard import TensorBoardLogger
from train.workdir.metrics_log import MetricsLog


def make_experiment(
    kind, dtype="bfloat16", devices=2, sizes=(), frozen=(), augment=None, model="resnet50"
):
    config = default_config()
    config.model.dtype = dtype
    fake = SimpleNamespace(device_kind=kind, process_index=0)
    return SimpleNamespace(
        config=config,
        model=create_model(model),
        devices=Devices([fake] * devices),
        train_loader=SimpleNamespace(
            sizes=SimpleNamespace(train_sizes=sizes),
            preprocessing=make_preprocessing(config.dataset),
        ),
        step_config=SimpleNamespace(frozen=frozen, augment=augment or Augment()),
    )


def test_peak_flops_of_known_devices_only():
    assert peak_flops("NVIDIA A100-SXM4-80GB", "bfloat16") == 312e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "float32") == 494e12  # in TF32, as JAX computes
    assert peak_flops("NVIDIA L40S", "bfloat16") == 362e12  # not the L4's
    assert peak_flops("TPU v5 lite", "bfloat16") == 197e12
    assert peak_flops("TPU v4", "float32") == 275e12
    for unknown in ("cpu", "NVIDIA GeForce RTX 4090", "NVIDIA L400", ""):
        assert peak_flops(unknown, "bfloat16") is None


def test_mfu_of_resnet50_on_two_gpus():
    # 4.089 G multiply-adds per image (He et al. 2015: 3.8 G for the original network).
    mfu = mfu_per_image(make_experiment("NVIDIA H100 80GB HBM3"))
    assert mfu == pytest.approx(6 * 4.089e9 / (2 * 989e12), rel=1e-3)
    small = mfu_per_image(make_experiment("NVIDIA H100 80GB HBM3", sizes=(160,)))
    assert small == pytest.approx(mfu * (160 / 224) ** 2, rel=0.01)


def test_mfu_of_segmentation_counts_the_crop_and_not_the_canvas():
    """The logits of a convolutional network take as many operations for each pixel."""
    fields = {"kind": "NVIDIA H100 80GB HBM3", "model": "fcn_resnet50"}
    canvas = mfu_per_image(make_experiment(**fields, augment=JointAugment()))
    assert canvas == mfu_per_image(make_experiment(**fields))
    crop = mfu_per_image(make_experiment(**fields, augment=JointAugment(crop_size=(112, 56))))
    assert crop == pytest.approx(canvas / 8, rel=1e-3)


@pytest.mark.parametrize("fields", [{"kind": "cpu"}, {"sizes": (128, 160)}, {"frozen": ("stem",)}])
def test_no_mfu_if_it_would_be_a_guess(fields):
    assert mfu_per_image(make_experiment(**({"kind": "TPU v4"} | fields))) is None


def test_mfu_is_in_all_outputs(tmp_path, capsys):
    meter = Meter(batch_size=1000, fetch=lambda tree: tree, mfu_per_image=1e-9)
    meter.add({"loss": 1.0, "top1": 0.5, "learning_rate": 0.1, "nonfinite": 0})
    meter.collect(step=1)
    row = {"step": 1, "epoch": 0.1} | meter.row(step=1)
    assert row["mfu"] == pytest.approx(row["images_per_second"] * 1e-9, abs=1e-4)
    row["mfu"] = 0.4123
    with Console(10) as console:
        console.progress(row)
    assert "MFU 41.2 %" in capsys.readouterr().out
    with MetricsLog(str(tmp_path), 0) as log:
        log.write(row)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["mfu"] == 0.4123
    logger = TensorBoardLogger(default_config(), str(tmp_path))
    logger.log(row)
    logger.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    written = events.read_bytes()
    assert b"mfu" in written and np.float32(0.4123).tobytes() in written
