"""Test that reading benign and malicious files of torch.save never runs code."""

import os
import pickle
import sys
import time
import zipfile

import numpy as np
import pytest

from flax_resnet import load_weights
from flax_resnet.weights import WeightsError
from flax_resnet.weights.formats.files import read_file
from tests.flax_resnet.weights import crafted_files


def write_torch(path, program, values=b"\0" * 16, order=b"little", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", values)
        archive.writestr("archive/byteorder", order)
    return path


class Attack:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "args"),
    [(os.system, ("touch {}",)), (eval, ("open('{}', 'w')",)), (getattr, (os, "getcwd"))],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickles_with_calls_are_rejected_and_nothing_runs(function, args, protocol, tmp_path):
    target = tmp_path / "owned"
    args = tuple(a.format(target) if isinstance(a, str) else "os" for a in args)
    program = pickle.dumps({"conv1.weight": Attack(function, *args)}, protocol)
    path = write_torch(tmp_path / "w.pth", program)
    old = tmp_path / "old.pth"
    old.write_bytes(crafted_files.old_torch(program))
    for source in (path, old):
        with pytest.raises(WeightsError, match=r"refused, and nothing was run.*safetensors"):
            load_weights("resnet18", source)
    assert not target.exists()


class Trap:
    def __getattr__(self, name):
        raise AssertionError(f"the reader looked for {name}")


@pytest.mark.parametrize("name", ["__main__", "omegaconf.dictconfig", "argparse", "mmengine"])
@pytest.mark.parametrize("place", ["argument", "callable"])
def test_objects_of_training_scripts_are_placeholders_and_nothing_runs(
    name, place, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, name, Trap())
    tensor = torch_tensor((4,), (1,))
    called = b"c" + name.encode() + b"\nRun\n)R"
    built = b"c" + name.encode() + b"\nRun\n)\x81}X\x01\0\0\0aK\x01sb"
    value = called if place == "callable" else built
    program = tensor[:-1] + b"X\x06\0\0\0config" + value + b"s."
    assert list(read_file(write_torch(tmp_path / "w.pth", program)).tensors) == [
        "layer1.0.conv1.weight"
    ]


@pytest.mark.parametrize(
    "name", ["os", "builtins", "torch.nn.modules.linear", "omegaconfx", "main"]
)
def test_objects_of_other_modules_are_refused(name, tmp_path):
    program = b"\x80\x02}X\x01\0\0\0ac" + name.encode() + b"\nRun\n)\x81s."
    with pytest.raises(WeightsError, match=rf"refers to '{name}\.Run'.*nothing was run"):
        read_file(write_torch(tmp_path / "w.pth", program))


PROGRAMS = {
    "no end": b"\x80\x02}",
    "stack": b"\x80\x02u.",
    "bytes": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "string": b"\x80\x02X\xff\xff\xff\x7fa.",
    "memo": b"\x80\x02j\xff\xff\xff\x7f.",
    "not a dict": pickle.dumps([1, 2], 2),
    "no tensors": pickle.dumps({"state_dict": {"epoch": 3}}, 2),
    "deep key": b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_invalid_pickles_raise_weights_error(program, tmp_path):
    with pytest.raises(WeightsError, match=r"corrupt|refused|no named tensors"):
        load_weights("resnet18", write_torch(tmp_path / "w.pth", program))


def torch_tensor(shape, stride, offset=0):
    """Return the pickle of a state dict with one tensor, a view of a storage of 4 floats."""

    def text(value):
        return b"X" + len(value).to_bytes(4, "little") + value

    def numbers(*values):
        return b"".join(b"\x8a\x08" + n.to_bytes(8, "little", signed=True) for n in values)

    storage = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu")
    view = numbers(offset) + b"(" + numbers(*shape) + b"t(" + numbers(*stride) + b"t"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x04tQ" + view
    call += b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + text(b"layer1.0.conv1.weight") + call + b"s."


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [
        ((5,), (1,), 0),
        ((2, 2), (3, 1), 0),
        ((4,), (1,), 1),
        ((10**12,), (1,), 0),
        ((3, 3), (1, 1), 0),
        ((2**48,) * 32, (1,) * 32, 2**48),
    ],
)
def test_tensors_beyond_their_storage_are_rejected(shape, stride, offset, tmp_path):
    path = write_torch(tmp_path / "w.pth", torch_tensor(shape, stride, offset))
    with pytest.raises(WeightsError, match=r"conv1.*needs [\d,]+…? values.*has 4"):
        load_weights("resnet18", path)


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [
        ((1,) * 33, (1,) * 33, 0),
        ((2**48 + 1,), (1,), 0),
        ((1,), (2**48 + 1,), 0),
        ((1,), (1,), 2**48 + 1),
        ((1,), (-1,), 0),
    ],
)
def test_invalid_sizes_and_strides_are_rejected(shape, stride, offset, tmp_path):
    path = write_torch(tmp_path / "w.pth", torch_tensor(shape, stride, offset))
    with pytest.raises(WeightsError, match=r"more than 32 axes, or with a size outside"):
        load_weights("resnet18", path)


def test_expanded_views_are_rejected(tmp_path):
    for shape, stride in (((9, 10**9), (0, 0)), ((2, 2), (0, 1))):
        path = write_torch(tmp_path / "w.pth", torch_tensor(shape, stride))
        with pytest.raises(WeightsError, match=r"is an expanded view; save it with .contiguous"):
            load_weights("resnet18", path)


@pytest.mark.parametrize("forge_compressed_size", [False, True])
@pytest.mark.parametrize("count", [2**20, 2**29])
def test_forged_entry_sizes_are_rejected(count, forge_compressed_size, tmp_path):
    path = write_torch(tmp_path / "w.pth", torch_tensor((count,), (1,)))
    raw = bytearray(path.read_bytes())
    local = raw.index(b"archive/data/0") - 30
    central = raw.rindex(b"archive/data/0") - 46
    for place in (local + 18, central + 20):
        if forge_compressed_size:
            raw[place : place + 4] = (4 * count).to_bytes(4, "little")
        raw[place + 4 : place + 8] = (4 * count).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(WeightsError, match="corrupt"):
        read_file(path).tensors["layer1.0.conv1.weight"].read()


def test_nested_tuples_with_shared_parts_are_rejected_quickly(tmp_path):
    program = b"\x80\x02)" + b"q\x00h\x00\x86" * 60 + b")R."
    start = time.monotonic()
    with pytest.raises(WeightsError, match="refers to a call of a tuple") as error:
        load_weights("resnet18", write_torch(tmp_path / "w.pth", program))
    assert time.monotonic() - start < 1 and len(str(error.value)) < 500


def test_long_names_are_truncated_in_messages(tmp_path):
    program = b"\x80\x02c" + b"a" * 10_000 + b"\nb\n."
    with pytest.raises(WeightsError, match="refused") as error:
        load_weights("resnet18", write_torch(tmp_path / "w.pth", program))
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(("order", "dtype"), [(b"little", "<f4"), (b"big", ">f4")])
def test_torch_views_in_both_byte_orders(order, dtype, tmp_path):
    values = np.arange(4, dtype=dtype).tobytes()
    path = write_torch(tmp_path / "w.pth", torch_tensor((2, 2), (1, 2)), values, order)
    array = read_file(path).tensors["layer1.0.conv1.weight"].read()
    np.testing.assert_array_equal(array, [[0, 2], [1, 3]])


def test_compressed_torch_archives_are_rejected(tmp_path):
    path = tmp_path / "w.pth"
    write_torch(path, torch_tensor((4,), (1,)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="compressed entry"):
        load_weights("resnet18", path)
