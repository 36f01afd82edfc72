"""Test the formats of weight files and the rejection of invalid files."""

import io
import pickle
import sys
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest

from flax_resnet import (
    ResNet,
    from_pretrained,
    load_weights,
    save_weights,
)
from flax_resnet.weights import WeightsError, read_weights
from flax_resnet.weights.formats.files import read_file
from tests.flax_resnet.peers import assert_same, randomized
from tests.flax_resnet.weights.weight_files import SMALL, flat, tensors_of, write_safetensors


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_other_float_types_are_converted_to_float32(dtype, format, tmp_path):
    variables = randomized(SMALL)
    leaves = {name: leaf.astype(dtype) for name, leaf in flat(variables).items()}
    path = tmp_path / f"w.{format}"
    if format == "npz":
        np.savez_compressed(path, **leaves)
    else:
        kind = {np.float16: "F16", np.float64: "F64", ml_dtypes.bfloat16: "BF16"}[dtype]
        entries = {n: (kind, leaf.shape, leaf.tobytes()) for n, leaf in leaves.items()}
        write_safetensors(path, entries)
    assert_same(
        load_weights(SMALL, path), jax.tree.map(lambda v: v.astype(dtype).astype("f4"), variables)
    )


def test_published_keras_2_files_are_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    model = ResNet((1,), width=8, num_classes=3, stride_conv="1x1", norm_epsilon=1.001e-5)
    variables = randomized(model)
    norm = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for path, leaf in flat(variables).items():
            _, *modules, name = path.split("/")
            layer = {"head": "probs", "stem_conv": "conv1_conv", "stem_norm": "conv1_bn"}.get(
                modules[0], "conv2_block1"
            )
            if modules[-1] in ("conv", "norm"):
                modules[-1] += "0"  # of the shortcut
            if len(modules) > 1:
                layer += f"_{modules[-1][-1]}_{'bn' if 'norm' in modules[-1] else 'conv'}"
            name = norm[name] if "norm" in modules[-1] else name
            file[f"{layer}/{layer}/{name}:0"] = leaf
    loaded, report = read_weights(model, tmp_path / "w.h5")
    assert report.complete and report.layout == "keras"
    assert_same(loaded, variables)


@pytest.mark.parametrize(
    ("leaf", "shape", "message"),
    [
        ("params/head/bias", (10**7,), "claims 10,000,000 classes"),
        ("params/stem_conv/kernel", (1, 1, 10**6, 1), "claims 1,000,000 image channels"),
    ],
)
def test_excessive_sizes_are_rejected(leaf, shape, message, tmp_path):
    leaves = {"params/stage1_block1/conv1/kernel": np.zeros(1), leaf: np.zeros(shape, np.int8)}
    np.savez_compressed(tmp_path / "w.npz", **leaves)
    with pytest.raises(WeightsError, match=message):
        load_weights("resnet18", tmp_path / "w.npz")


@pytest.mark.parametrize("keep", [0, 5, 20, 0.5, 0.999])
@pytest.mark.parametrize("format", ["safetensors", "npz"])
def test_truncated_files_raise_weights_error(format, keep, saved, tmp_path):
    variables, path = saved
    if format == "npz":
        np.savez(tmp_path / "small.npz", **flat(variables))
        path = tmp_path / "small.npz"
    raw = path.read_bytes()
    path.write_bytes(raw[: keep if isinstance(keep, int) else int(len(raw) * keep)])
    with pytest.raises(WeightsError, match=r"empty|truncated|not a supported weight file|corrupt"):
        load_weights(SMALL, path)


HEADERS = {
    "not JSON": b"{nonsense",
    "not a table": b"{}".replace(b"}", b'"a":3}'),
    "nested": b'{"a":' + b"[" * 100_000,
    "negative": b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
    "axes": b'{"a":{"dtype":"F32","shape":[' + b"1," * 32 + b'1],"data_offsets":[0,4]}}',
    "huge": b'{"a":{"dtype":"F32","shape":[' + b"9" * 4000 + b'],"data_offsets":[0,4]}}',
    "outside": b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}',
    "not its size": b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}',
    "type": b'{"a":{"dtype":"Q4","shape":[1],"data_offsets":[0,4]}}',
    "overlap": b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
    b'"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    "gap": b'{"a":{"dtype":"I16","shape":[1],"data_offsets":[2,4]}}',
    "metadata": b'{"__metadata__":{"format":3}}',
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_invalid_safetensors_headers_raise_weights_error(header, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(WeightsError, match=r"^[^\n]*w\.safetensors is corrupt[^\n]*$") as error:
        load_weights("resnet18", path)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("length", [5, 10**8 + 1, 2**64 - 1])
def test_invalid_safetensors_header_lengths_raise_weights_error(length, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(WeightsError, match=r"w\.safetensors is corrupt or truncated"):
        load_weights("resnet18", path)


@pytest.mark.parametrize("kind", ["F4", "F6_E2M3", "F8_E8M0", "C64"])
def test_unsupported_safetensors_types_are_named(kind, tmp_path):
    bits = {"F4": 4, "F6_E2M3": 6, "F8_E8M0": 8, "C64": 64}[kind]
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"layer1.0.conv1.weight": (kind, (8,), bytes(bits))})
    with pytest.raises(WeightsError, match=f"conv1.weight has type {kind}|unknown variant `{kind}"):
        load_weights("resnet18", path)


def test_float8_weights_are_rejected_as_quantized(saved):
    _, path = saved
    tensors = tensors_of(path)
    tensors["fc.bias"] = ("F8_E4M3", (5,), bytes(5))
    write_safetensors(path, tensors)
    assert read_file(path).tensors["fc.bias"].dtype == ml_dtypes.float8_e4m3fn
    with pytest.raises(WeightsError, match=r"fc.bias is float8_e4m3fn, not floating point.*quanti"):
        load_weights(SMALL, path)


def test_saved_files_have_default_permissions(saved, tmp_path):
    _, path = saved
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            np.full((8, 3, 7, 7), np.nan),
            r"conv1.weight: 1176 of 1176 .* nan at \(0, 0, 0, 0\)",
        ),
        (np.full((8, 3, 7, 7), 1e300), r"conv1.weight: 1176 .*inf"),
        (np.zeros((8, 3, 7, 7), np.int8), r"conv1.weight is int8, not floating point"),
    ],
)
def test_non_finite_and_integer_weights_are_rejected(value, message, saved, tmp_path):
    _, path = saved
    save_weights(SMALL, saved[0], path)
    kind = {"float64": "F64", "int8": "I8"}[value.dtype.name]
    tensors = tensors_of(path)
    tensors["conv1.weight"] = (kind, value.shape, value.tobytes())
    write_safetensors(path, tensors)
    with pytest.raises(WeightsError, match=message):
        load_weights(SMALL, path)


def test_negative_variance_is_rejected(saved, tmp_path):
    variables, _ = saved
    variables["batch_stats"]["stem_norm"]["var"][2] = 0  # of a channel that is always zero
    np.savez(tmp_path / "w.npz", **flat(variables))
    assert_same(load_weights(SMALL, tmp_path / "w.npz"), variables)
    variables["batch_stats"]["stem_norm"]["var"][2] = -1
    np.savez(tmp_path / "w.npz", **flat(variables))
    with pytest.raises(WeightsError, match=r"stem_norm/var is a variance but has -1"):
        load_weights(SMALL, tmp_path / "w.npz")


def zipped(**entries):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return raw.getvalue()


OBJECTS = io.BytesIO()
np.savez(OBJECTS, a=np.array([print], object))
FILES = {
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "not a supported weight file: it starts with"),
    "text": (b"<html>404</html>", "not a supported weight file: it starts with b'<html>40'"),
    "old torch": (pickle.dumps(0x1950A86A20F9469CFC6C, 2), "corrupt or truncated"),
    "pickle": (pickle.dumps({"a": 1}, 2), r"is a pickle of Python objects.*refused\. Save.*state"),
    "zip": (zipped(readme=b""), "not from PyTorch, Keras or NumPy"),
    "script": (
        zipped(m__data_dot_pkl=b"", m__constants_dot_pkl=b""),
        "TorchScript program.*state_dict",
    ),
    "objects": (OBJECTS.getvalue(), "a contains Python objects.*refused"),
    "other names": (
        b"\x3c\0\0\0\0\0\0\0"
        + b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(60)
        + bytes(4),
        "no layer names of torchvision.* 1 tensors are w",
    ),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_unsupported_files_are_rejected(content, message, tmp_path):
    path = tmp_path / "w.bin"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_weights("resnet18", path)


def test_missing_files_and_empty_directories_are_rejected(tmp_path):
    with pytest.raises(WeightsError, match=r"w\.pth does not exist"):
        load_weights("resnet18", tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="directory without a checkpoint"):
        load_weights("resnet18", tmp_path)


def test_invalid_paths_are_reported(saved, tmp_path):
    variables, path = saved
    with pytest.raises(WeightsError, match=r"cannot be read: .*too long"):
        load_weights(SMALL, tmp_path / ("a" * 300))
    for invalid in (tmp_path / ("a" * 300 + ".safetensors"), path / "w.safetensors"):
        with pytest.raises(WeightsError, match=r"cannot write .*(too long|Not a directory)"):
            save_weights(SMALL, variables, invalid)
    with pytest.raises(WeightsError, match="does not exist"):
        load_weights(SMALL, path / "w.safetensors")


def test_missing_extras_are_reported(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(WeightsError, match=r"huggingface_hub: pip install 'flax-resnet\[pretr"):
        from_pretrained("resnet50.a1_in1k")
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(WeightsError, match=r"h5py: pip install 'flax-resnet\[pretrained\]'"):
        load_weights("resnet50", tmp_path / "w.h5")
