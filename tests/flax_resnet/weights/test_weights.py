"""Test loading, saving, and the commands inspect and convert."""

import logging
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import freeze

from flax_resnet import (
    ResNet,
    create_model,
    init_variables,
    load_weights,
    save_weights,
)
from flax_resnet.weights import WeightsError, read_weights
from flax_resnet.weights.__main__ import main
from tests.flax_resnet.peers import assert_same, randomized
from tests.flax_resnet.weights.weight_files import SMALL, flat, tensors_of, write_safetensors


@pytest.mark.parametrize("layout", ["torchvision", "timm", "huggingface", "flax"])
@pytest.mark.parametrize(
    "model",
    [
        SMALL,
        ResNet((2, 1), block="residual", width=8, num_classes=3),
        ResNet((1, 1), width=8, shortcut="projection_all"),
        create_model("resnet20", num_classes=0),
    ],
)
def test_round_trip_is_bit_exact(model, layout, tmp_path):
    variables = randomized(model, channels=1)
    save_weights(model, variables, tmp_path / "w.safetensors", layout=layout)
    again, report = read_weights(model, tmp_path / "w.safetensors")
    assert_same(variables, again)
    assert report.complete and len(report.loaded) == len(jax.tree.leaves(variables))
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_model_name_gets_the_number_of_classes_of_the_file(tmp_path):
    model = create_model("resnet20", num_classes=7)
    variables = randomized(model)
    path = tmp_path / "w.safetensors"
    save_weights("resnet20", variables, path, layout="timm")
    assert_same(load_weights("resnet20", path), variables)
    other = create_model("resnet20", num_classes=4)
    assert load_weights(other, path)["params"]["head"]["kernel"].shape == (64, 4)


def test_other_number_of_classes_initializes_a_new_head(saved, caplog):
    variables, path = saved
    with caplog.at_level(logging.INFO, "flax_resnet.weights"):
        loaded = load_weights(SMALL, path, num_classes=9, seed=3)
    initial = init_variables(SMALL.clone(num_classes=9), 3, (64, 64, 3))
    assert_same(loaded["params"].pop("head"), initial["params"]["head"])
    variables["params"].pop("head")
    assert_same(loaded, variables)
    assert caplog.records[0].levelname == "WARNING"
    assert "params/head/kernel (32, 5) for (32, 9)" in caplog.text.replace("64", "32")


def test_zero_classes_omit_the_head(saved):
    variables, path = saved
    loaded, report = read_weights(SMALL, path, num_classes=0)
    assert report.skipped == ("fc.bias", "fc.weight") and not report.missing
    variables["params"].pop("head")
    assert_same(loaded, variables)


def test_missing_head_is_reported(saved, tmp_path):
    variables, _ = saved
    leaves = {name: leaf for name, leaf in flat(variables).items() if "head" not in name}
    np.savez(tmp_path / "w.npz", **leaves, **{"projector/kernel": np.zeros(3)})
    loaded, report = read_weights(SMALL, tmp_path / "w.npz")
    assert report.missing == ("params/head/bias", "params/head/kernel")
    assert report.skipped == ("projector/kernel",)
    assert "2 new, 1 left" in str(report)
    assert_same(loaded["batch_stats"], variables["batch_stats"])


def test_non_strict_loads_whatever_fits(saved):
    variables, path = saved
    deeper = ResNet((1, 3), block="bottleneck", width=8, num_classes=5)
    with pytest.raises(WeightsError, match=r"leaves are missing.*stages have 1-2 blocks"):
        load_weights(deeper, path)
    loaded, report = read_weights(deeper, path, strict=False)
    fresh = loaded["params"].pop("stage2_block3")
    loaded["batch_stats"].pop("stage2_block3")
    assert_same(loaded, variables)
    initial = init_variables(deeper, 0, (64, 64, 3))["params"]["stage2_block3"]
    assert_same(fresh, initial)
    assert len(report.missing) == 15


def test_deeper_networks_file_is_rejected(tmp_path):
    save_weights("resnet32", randomized(create_model("resnet32")), tmp_path / "w.safetensors")
    with pytest.raises(
        WeightsError,
        match=r"not match resnet20: .* not in the network .*layer1\.3.* 5-5-5.*fits resnet32",
    ):
        load_weights("resnet20", tmp_path / "w.safetensors")


def test_other_stride_than_torchvision_is_reported_as_doubt(tmp_path):
    first, second = (ResNet((1, 1), width=8, stride_conv=conv) for conv in ("3x3", "1x1"))
    path = tmp_path / "w.safetensors"
    frozen = freeze(jax.tree.map(jnp.asarray, randomized(first)))  # as in older Flax versions
    save_weights(first, frozen, path)
    assert read_weights(first, path)[1].complete
    assert "a network with stride_conv='3x3', this one has '1x1'" in str(
        read_weights(second, path)[1]
    )
    write_safetensors(path, tensors_of(path))
    assert read_weights(first, path)[1].complete
    report = read_weights(second, path)[1]
    assert not report.complete and "stride_conv='3x3'" in str(report)
    save_weights(first, frozen, path, layout="huggingface")
    write_safetensors(path, tensors_of(path))
    assert "stride_conv='3x3'" in str(read_weights(second, path)[1])


@pytest.mark.parametrize(
    ("fields", "layouts"),
    [
        ({}, ""),
        ({"block": "residual", "stride_conv": "1x1"}, ""),
        ({"stride_conv": "1x1"}, "torchvision timm"),
        ({"stride_block": "last"}, "torchvision timm huggingface"),
        ({"shortcut": "zero_pad"}, "torchvision timm huggingface"),
        ({"shortcut": "none"}, "torchvision timm huggingface"),
        ({"shortcut": "projection_all"}, "torchvision timm huggingface"),
        ({"shortcut": "projection_channels"}, "torchvision timm huggingface"),
        ({"shortcut": "projection_3x3"}, "torchvision huggingface"),
        ({"antialias": "blur"}, "torchvision huggingface"),
        ({"norm_epsilon": 1e-3}, "torchvision timm huggingface"),
    ],
)
def test_saving_warns_about_unsupported_fields(fields, layouts, tmp_path, caplog):
    model = ResNet((1, 1), width=8, **fields)
    variables = randomized(model)
    for layout in ("torchvision", "timm", "huggingface", "flax"):
        caplog.clear()
        save_weights(model, variables, tmp_path / "w.safetensors", layout=layout)
        name, value = list(fields.items())[-1] if fields else ("", "")
        assert (f"no network of {layout} has {name}={value!r}" in caplog.text) == (
            layout in layouts.split()
        )
        assert read_weights(model, tmp_path / "w.safetensors")[1].complete
        if layouts:
            other = model.clone(**{name: getattr(ResNet, name)})
            report = read_weights(other, tmp_path / "w.safetensors", strict=False)[1]
            assert f"a network with {name}={value!r}" in str(report)


def test_layouts_reject_layers_without_a_name(tmp_path):
    for name, layout in (("resnet50d", "torchvision"), ("seresnet50", "huggingface")):
        model = create_model(name, stage_sizes=(1, 1), width=16)
        with pytest.raises(WeightsError, match=f"the {layout} layout has no name for s.*timm"):
            save_weights(model, randomized(model), tmp_path / "w.safetensors", layout=layout)


def test_the_old_order_of_arguments_is_rejected(tmp_path):
    with pytest.raises(WeightsError, match="its first argument is of type dict"):
        save_weights({"params": {}}, tmp_path / "w.safetensors", "resnet20")


def test_wrapper_prefixes_are_stripped(saved, tmp_path):
    variables, _ = saved
    np.savez(tmp_path / "w.npz", **{f"module/{n}": leaf for n, leaf in flat(variables).items()})
    assert_same(load_weights(SMALL, tmp_path / "w.npz"), variables)


@pytest.mark.parametrize("folder", ["", "checkpoints", "checkpoints/12", "checkpoints/12/default"])
def test_checkpoints_are_read_without_the_optimizer_state(folder, tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    variables = randomized(SMALL)
    for step, scale in ((3, 0), (12, 1)):
        state = jax.tree.map(lambda leaf, scale=scale: leaf * scale, variables)
        state |= {"step": step, "opt_state": (jnp.zeros(3), None)}
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "checkpoints" / str(step) / "default", state)
    loaded, report = read_weights(SMALL, tmp_path / folder)
    assert_same(loaded, variables)
    assert report.complete and "12/default" in str(report)


@pytest.mark.parametrize("has_ema", [True, False])
def test_ema_weights_are_read_if_present(has_ema, tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    variables = randomized(SMALL)
    state = jax.tree.map(lambda leaf: leaf * 0, variables) if has_ema else dict(variables)
    state |= {"ema": variables if has_ema else {}, "step": 3}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "checkpoints/3/default", state)
    loaded, report = read_weights(SMALL, tmp_path)
    assert_same(loaded, variables)
    assert report.complete and ("read the EMA of the weights in" in str(report)) == has_ema
    if has_ema:
        assert_same(read_weights(SMALL, f"{tmp_path}#ema")[0], variables)
        trained = read_weights(SMALL, f"{tmp_path}#params")[0]
        assert_same(trained, jax.tree.map(lambda leaf: leaf * 0, variables))
    with pytest.raises(WeightsError, match="has the parts 'ema' and 'params', but not 'best'"):
        read_weights(SMALL, f"{tmp_path}#best")


def test_downloaded_repositories_are_read(saved):
    variables, path = saved
    path.rename(path.with_name("model.safetensors"))
    assert_same(load_weights(SMALL, path.parent), variables)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda v: v, {"layout": "caffe"}, "'caffe'; valid are torchvision, timm"),
        (lambda v: v, {"model": "resnet18"}, r"not match resnet18: .*and \d+ more"),
        (lambda v: v, {"path": "w.pth"}, r"saved as \.safetensors"),
        (lambda v: v["params"], {}, "need"),
        (lambda v: jax.tree.map(lambda a: a[None], v), {}, "one device"),
        (lambda v: v | {"batch_stats": {}}, {}, "batch_stats/stage1_block1/norm1/mean missing"),
        (lambda v: jax.tree.map(lambda a: a * np.nan, v), {}, "not finite"),
        (lambda v: v, {"path": "nowhere/w.safetensors"}, "cannot write .*No such file"),
    ],
)
def test_failed_save_leaves_no_file(change, arguments, message, tmp_path):
    arguments = {"model": SMALL, "path": "w.safetensors"} | arguments
    path = tmp_path / arguments.pop("path")
    with pytest.raises(WeightsError, match=message):
        save_weights(variables=change(randomized(SMALL)), path=path, **arguments)
    assert os.listdir(tmp_path) == []


def test_failed_save_keeps_the_existing_file(saved, monkeypatch):
    variables, path = saved
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(WeightsError, match="disk full"):
        save_weights(SMALL, variables, path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_inspect_and_convert(tmp_path, capsys):
    variables = randomized(create_model("resnet20", num_classes=3))
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    save_weights("resnet20", variables, source, layout="huggingface")
    assert main(["inspect", str(source), "--tensors"]) == 0
    text = capsys.readouterr().out
    assert "layout    huggingface" in text and "network   resnet20\n" in text
    assert "classes   3\n" in text and "classifier.1.weight  3×64  float32" in text
    assert main(["convert", str(source), str(target), "--layout", "torchvision"]) == 0
    assert "resnet20, 3 classes" in capsys.readouterr().out
    assert_same(load_weights("resnet20", target), variables)


def test_command_errors_are_one_line_with_exit_status(tmp_path):
    run = [sys.executable, "-m", "flax_resnet.weights"]
    failed = subprocess.run([*run, "inspect", str(tmp_path)], capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1
    assert failed.stderr.startswith("error: ") and "directory" in failed.stderr
    with pytest.raises(SystemExit) as usage:
        main(["convert", "a", "b"])
    assert usage.value.code == 2


def test_import_loads_no_optional_package():
    code = "from flax_resnet import from_pretrained, save_weights; import sys; "
    code += "print([m for m in sys.modules if m.split('.')[0] in "
    code += "('torch', 'h5py', 'huggingface_hub', 'train', 'keras')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
