"""Weight files in and out, what they are refused for, and the commands."""

import io
import json
import logging
import os
import pickle
import subprocess
import sys
import time
import zipfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax.core import freeze

from flax_resnet import (
    ResNet,
    create_model,
    init_variables,
    load_pretrained,
    load_weights,
    save_weights,
)
from flax_resnet.weights import WeightsError, read_weights
from flax_resnet.weights.__main__ import main
from flax_resnet.weights.files import read_file

SMALL = ResNet((1, 2), block="bottleneck", width=8, num_classes=5)


def random_variables(model, seed=0, channels=3):
    """Every leaf random, so that no two could be swapped unseen."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32),
        init_variables(model, seed, (32, 32, channels)),
    )


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def flat(variables):
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}


def write_safetensors(path, tensors):
    """The format by hand: (type, shape, bytes) by name."""
    table, offset = {}, 0
    for name, (kind, shape, raw) in tensors.items():
        table[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
    header = json.dumps(table).encode()
    values = b"".join(raw for *_, raw in tensors.values())
    path.write_bytes(len(header).to_bytes(8, "little") + header + values)


def tensors_of(path):
    """What write_safetensors takes, from a file."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    table, values = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    table.pop("__metadata__", None)
    return {
        name: (entry["dtype"], entry["shape"], values[slice(*entry["data_offsets"])])
        for name, entry in table.items()
    }


def write_torch(path, program, values=b"\0" * 16, order=b"little", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", values)
        archive.writestr("archive/byteorder", order)
    return path


@pytest.fixture
def saved(tmp_path):
    """SMALL's variables, and their file in torchvision's names."""
    variables = random_variables(SMALL)
    save_weights(variables, tmp_path / "small.safetensors", model=SMALL)
    return variables, tmp_path / "small.safetensors"


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
    variables = random_variables(model, channels=1)
    save_weights(variables, tmp_path / "w.safetensors", model=model, layout=layout)
    again, report = read_weights(model, tmp_path / "w.safetensors")
    assert_same(variables, again)
    assert report.complete and len(report.loaded) == len(jax.tree.leaves(variables))
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_a_name_takes_the_files_classes_and_a_network_its_own(tmp_path):
    model = create_model("resnet20", num_classes=7)
    variables = random_variables(model)
    path = tmp_path / "w.safetensors"
    save_weights(variables, path, model="resnet20", layout="timm")
    assert_same(load_weights("resnet20", path), variables)
    other = create_model("resnet20", num_classes=4)
    assert load_weights(other, path)["params"]["head"]["kernel"].shape == (64, 4)


def test_another_number_of_classes_draws_the_head_afresh(saved, caplog):
    variables, path = saved
    with caplog.at_level(logging.INFO, "flax_resnet.weights"):
        loaded = load_weights(SMALL, path, num_classes=9, seed=3)
    drawn = init_variables(SMALL.clone(num_classes=9), 3, (64, 64, 3))
    assert_same(loaded["params"].pop("head"), drawn["params"]["head"])
    variables["params"].pop("head")
    assert_same(loaded, variables)
    assert caplog.records[0].levelname == "WARNING"
    assert "params/head/kernel (32, 5) for (32, 9)" in caplog.text.replace("64", "32")


def test_without_classes_the_head_is_left_out(saved):
    variables, path = saved
    loaded, report = read_weights(SMALL, path, num_classes=0)
    assert report.skipped == ("fc.bias", "fc.weight") and not report.missing
    variables["params"].pop("head")
    assert_same(loaded, variables)


def test_a_backbone_without_head_is_reported(saved, tmp_path):
    variables, _ = saved
    leaves = {name: leaf for name, leaf in flat(variables).items() if "head" not in name}
    np.savez(tmp_path / "w.npz", **leaves, **{"projector/kernel": np.zeros(3)})
    loaded, report = read_weights(SMALL, tmp_path / "w.npz")
    assert report.missing == ("params/head/bias", "params/head/kernel")
    assert report.skipped == ("projector/kernel",)
    assert "2 missing" in str(report) and "1 skipped" in str(report)
    assert_same(loaded["batch_stats"], variables["batch_stats"])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_other_types_become_float32(dtype, format, tmp_path):
    variables = random_variables(SMALL)
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


def test_strict_off_takes_what_fits(saved):
    variables, path = saved
    deeper = ResNet((1, 3), block="bottleneck", width=8, num_classes=5)
    with pytest.raises(WeightsError, match=r"leaves are missing.*stages have 1-2 blocks"):
        load_weights(deeper, path)
    loaded, report = read_weights(deeper, path, strict=False)
    fresh = loaded["params"].pop("stage2_block3")
    loaded["batch_stats"].pop("stage2_block3")
    assert_same(loaded, variables)
    drawn = init_variables(deeper, 0, (64, 64, 3))["params"]["stage2_block3"]
    assert_same(fresh, drawn)
    assert len(report.missing) == 15


def test_a_deeper_networks_file_is_refused_though_all_names_are_found(tmp_path):
    save_weights(
        random_variables(create_model("resnet32")), tmp_path / "w.safetensors", model="resnet32"
    )
    with pytest.raises(
        WeightsError, match=r"not of resnet20: .* have no place .*layer1\.3.* 5-5-5.*is resnet32"
    ):
        load_weights("resnet20", tmp_path / "w.safetensors")


def test_torchvisions_weights_in_a_net_of_another_stride_are_doubted(tmp_path):
    first, second = (ResNet((1, 1), width=8, stride_conv=where) for where in ("3x3", "1x1"))
    path = tmp_path / "w.safetensors"
    frozen = freeze(jax.tree.map(jnp.asarray, random_variables(first)))  # as older Flax has them
    save_weights(frozen, path, model=first)
    assert read_weights(first, path)[1].complete
    assert "a network with stride_conv='3x3', this one has '1x1'" in str(
        read_weights(second, path)[1]
    )
    write_safetensors(path, tensors_of(path))
    assert read_weights(first, path)[1].complete
    report = read_weights(second, path)[1]
    assert not report.complete and "stride_conv='3x3'" in str(report)
    save_weights(frozen, path, model=first, layout="huggingface")
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
        ({"norm_epsilon": 1e-3}, "torchvision timm huggingface"),
    ],
)
def test_saving_warns_of_fields_that_the_library_lacks(fields, layouts, tmp_path, caplog):
    model = ResNet((1, 1), width=8, **fields)
    variables = random_variables(model)
    for layout in ("torchvision", "timm", "huggingface", "flax"):
        caplog.clear()
        save_weights(variables, tmp_path / "w.safetensors", model=model, layout=layout)
        name, value = list(fields.items())[-1] if fields else ("", "")
        assert (f"no network of {layout} has {name}={value!r}" in caplog.text) == (
            layout in layouts.split()
        )
        assert read_weights(model, tmp_path / "w.safetensors")[1].complete
        if layouts:
            other = model.clone(**{name: getattr(ResNet, name)})
            report = read_weights(other, tmp_path / "w.safetensors", strict=False)[1]
            assert f"a network with {name}={value!r}" in str(report)


def test_kerass_published_files_of_version_2_are_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    model = ResNet((1,), width=8, num_classes=3, stride_conv="1x1", norm_epsilon=1.001e-5)
    variables = random_variables(model)
    norm = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for path, leaf in flat(variables).items():
            _, *modules, name = path.split("/")
            where = {"head": "probs", "stem_conv": "conv1_conv", "stem_norm": "conv1_bn"}.get(
                modules[0], "conv2_block1"
            )
            if modules[-1] in ("conv", "norm"):
                modules[-1] += "0"  # the shortcut's
            if len(modules) > 1:
                where += f"_{modules[-1][-1]}_{'bn' if 'norm' in modules[-1] else 'conv'}"
            name = norm[name] if "norm" in modules[-1] else name
            file[f"{where}/{where}/{name}:0"] = leaf
    loaded, report = read_weights(model, tmp_path / "w.h5")
    assert report.complete and report.layout == "keras"
    assert_same(loaded, variables)


def test_wrappers_prefixes_are_seen_through(saved, tmp_path):
    variables, _ = saved
    np.savez(tmp_path / "w.npz", **{f"module/{n}": leaf for n, leaf in flat(variables).items()})
    assert_same(load_weights(SMALL, tmp_path / "w.npz"), variables)


@pytest.mark.parametrize("where", ["", "checkpoints", "checkpoints/12", "checkpoints/12/default"])
def test_a_runs_checkpoint_is_read_without_its_optimizer(where, tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    variables = random_variables(SMALL)
    for step, scale in ((3, 0), (12, 1)):
        state = jax.tree.map(lambda leaf, scale=scale: leaf * scale, variables)
        state |= {"step": step, "opt_state": (jnp.zeros(3), None)}
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "checkpoints" / str(step) / "default", state)
    loaded, report = read_weights(SMALL, tmp_path / where)
    assert_same(loaded, variables)
    assert report.complete and "12/default" in str(report)


def test_a_downloaded_repository_is_read(saved):
    variables, path = saved
    path.rename(path.with_name("model.safetensors"))
    assert_same(load_weights(SMALL, path.parent), variables)


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
def test_a_pickle_that_calls_is_refused_and_nothing_runs(function, args, protocol, tmp_path):
    target = tmp_path / "owned"
    args = tuple(a.format(target) if isinstance(a, str) else "os" for a in args)
    program = pickle.dumps({"conv1.weight": Attack(function, *args)}, protocol)
    path = write_torch(tmp_path / "w.pth", program)
    with pytest.raises(WeightsError, match=r"refused, and nothing was run.*safetensors"):
        load_weights("resnet18", path)
    assert not target.exists()


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
def test_broken_pickles_end_in_one_error(program, tmp_path):
    with pytest.raises(WeightsError, match=r"damaged|refused|no tensors by name"):
        load_weights("resnet18", write_torch(tmp_path / "w.pth", program))


def torch_tensor(shape, stride, offset=0):
    """A state dict of one tensor over 4 floats, as torch.save describes it."""

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
def test_tensors_beyond_their_storage_are_refused(shape, stride, offset, tmp_path):
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
def test_sizes_that_no_tensor_has_are_refused(shape, stride, offset, tmp_path):
    path = write_torch(tmp_path / "w.pth", torch_tensor(shape, stride, offset))
    with pytest.raises(WeightsError, match=r"more than 32 axes, or with a size outside"):
        load_weights("resnet18", path)


def test_expanded_views_are_told(tmp_path):
    for shape, stride in (((9, 10**9), (0, 0)), ((2, 2), (0, 1))):
        path = write_torch(tmp_path / "w.pth", torch_tensor(shape, stride))
        with pytest.raises(WeightsError, match=r"is an expanded view; save it with .contiguous"):
            load_weights("resnet18", path)


@pytest.mark.parametrize("stored_too", [False, True])
@pytest.mark.parametrize("count", [2**20, 2**29])
def test_a_forged_entry_size_is_refused(count, stored_too, tmp_path):
    path = write_torch(tmp_path / "w.pth", torch_tensor((count,), (1,)))
    raw = bytearray(path.read_bytes())
    local = raw.index(b"archive/data/0") - 30
    central = raw.rindex(b"archive/data/0") - 46
    for place in (local + 18, central + 20):
        if stored_too:
            raw[place : place + 4] = (4 * count).to_bytes(4, "little")
        raw[place + 4 : place + 8] = (4 * count).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(WeightsError, match="damaged"):
        read_file(path).tensors["layer1.0.conv1.weight"].read()


def test_nested_tuples_that_share_parts_are_refused_at_once(tmp_path):
    program = b"\x80\x02)" + b"q\x00h\x00\x86" * 60 + b")R."
    start = time.monotonic()
    with pytest.raises(WeightsError, match="refers to a call of a tuple") as refusal:
        load_weights("resnet18", write_torch(tmp_path / "w.pth", program))
    assert time.monotonic() - start < 1 and len(str(refusal.value)) < 500


def test_long_names_are_cut_in_messages(tmp_path):
    program = b"\x80\x02c" + b"a" * 10_000 + b"\nb\n."
    with pytest.raises(WeightsError, match="refused") as refusal:
        load_weights("resnet18", write_torch(tmp_path / "w.pth", program))
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(("order", "dtype"), [(b"little", "<f4"), (b"big", ">f4")])
def test_torch_views_of_either_byte_order(order, dtype, tmp_path):
    values = np.arange(4, dtype=dtype).tobytes()
    path = write_torch(tmp_path / "w.pth", torch_tensor((2, 2), (1, 2)), values, order)
    array = read_file(path).tensors["layer1.0.conv1.weight"].read()
    np.testing.assert_array_equal(array, [[0, 2], [1, 3]])


def test_a_compressed_torch_archive_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    write_torch(path, torch_tensor((4,), (1,)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="compressed entry"):
        load_weights("resnet18", path)


@pytest.mark.parametrize(
    ("leaf", "shape", "message"),
    [
        ("params/head/bias", (10**7,), "claims 10,000,000 classes"),
        ("params/stem_conv/kernel", (1, 1, 10**6, 1), "claims 1,000,000 image channels"),
    ],
)
def test_absurd_claims_are_refused(leaf, shape, message, tmp_path):
    leaves = {"params/stage1_block1/conv1/kernel": np.zeros(1), leaf: np.zeros(shape, np.int8)}
    np.savez_compressed(tmp_path / "w.npz", **leaves)
    with pytest.raises(WeightsError, match=message):
        load_weights("resnet18", tmp_path / "w.npz")


@pytest.mark.parametrize("keep", [0, 5, 20, 0.5, 0.999])
@pytest.mark.parametrize("format", ["safetensors", "npz"])
def test_truncated_files_end_in_one_error(format, keep, saved, tmp_path):
    variables, path = saved
    if format == "npz":
        np.savez(tmp_path / "small.npz", **flat(variables))
        path = tmp_path / "small.npz"
    raw = path.read_bytes()
    path.write_bytes(raw[: keep if isinstance(keep, int) else int(len(raw) * keep)])
    with pytest.raises(WeightsError, match=r"empty|cut short|no weight file|damaged"):
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
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_broken_safetensors_end_in_one_error(header, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(WeightsError, match=r"damaged|cut short|type Q4"):
        load_weights("resnet18", path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((8, 3, 7, 7), np.nan), r"conv1.weight has 1176 of 1176 .* nan at \(0, 0, 0, 0\)"),
        (np.full((8, 3, 7, 7), 1e300), r"conv1.weight has 1176 .*inf"),
        (np.zeros((8, 3, 7, 7), np.int8), r"conv1.weight is int8, not floating point"),
    ],
)
def test_values_that_are_no_weights_are_refused(value, message, saved, tmp_path):
    _, path = saved
    save_weights(saved[0], path, model=SMALL)
    kind = {"float64": "F64", "int8": "I8"}[value.dtype.name]
    tensors = tensors_of(path)
    tensors["conv1.weight"] = (kind, value.shape, value.tobytes())
    write_safetensors(path, tensors)
    with pytest.raises(WeightsError, match=message):
        load_weights(SMALL, path)


def test_a_negative_variance_is_refused(saved, tmp_path):
    variables, _ = saved
    variables["batch_stats"]["stem_norm"]["var"][2] = -1
    np.savez(tmp_path / "w.npz", **flat(variables))
    with pytest.raises(WeightsError, match=r"stem_norm/var is a variance, but holds -1"):
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
    "text": (b"<html>404</html>", "no weight file that is known here: it starts with b'<html>40'"),
    "old torch": (pickle.dumps(0x1950A86A20F9469CFC6C, 2), r"bare pickle.*weights_only=True"),
    "zip": (zipped(readme=b""), "not of PyTorch, Keras or NumPy"),
    "script": (
        zipped(m__data_dot_pkl=b"", m__constants_dot_pkl=b""),
        "TorchScript program.*state_dict",
    ),
    "objects": (OBJECTS.getvalue(), "a holds Python objects.*refused"),
    "other names": (
        b"\x3c\0\0\0\0\0\0\0"
        + b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(60)
        + bytes(4),
        "no layer names of torchvision.* 1 tensors are w",
    ),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_files_of_another_kind_are_told(content, message, tmp_path):
    path = tmp_path / "w.bin"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_weights("resnet18", path)


def test_no_file_and_an_empty_directory_are_told(tmp_path):
    with pytest.raises(WeightsError, match=r"w\.pth does not exist"):
        load_weights("resnet18", tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="directory without a checkpoint"):
        load_weights("resnet18", tmp_path)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda v: v, {"layout": "caffe"}, "'caffe'; valid are torchvision, timm"),
        (lambda v: v, {"model": "resnet18"}, r"not those of resnet18: .*and \d+ more"),
        (lambda v: v, {"path": "w.pth"}, r"saved as \.safetensors"),
        (lambda v: v["params"], {}, "need"),
        (lambda v: jax.tree.map(lambda a: a[None], v), {}, "one device"),
        (lambda v: v | {"batch_stats": {}}, {}, "batch_stats/stage1_block1/norm1/mean missing"),
        (lambda v: jax.tree.map(lambda a: a * np.nan, v), {}, "not finite"),
        (lambda v: v, {"path": "nowhere/w.safetensors"}, "cannot write .*No such file"),
    ],
)
def test_what_cannot_be_saved_leaves_no_file(change, arguments, message, tmp_path):
    arguments = {"model": SMALL, "path": "w.safetensors"} | arguments
    path = tmp_path / arguments.pop("path")
    with pytest.raises(WeightsError, match=message):
        save_weights(change(random_variables(SMALL)), path, **arguments)
    assert os.listdir(tmp_path) == []


def test_a_save_that_fails_keeps_the_old_file(saved, monkeypatch):
    variables, path = saved
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(WeightsError, match="disk full"):
        save_weights(variables, path, model=SMALL)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_pretrained_ids_are_fetched_from_the_hub(saved, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    errors = pytest.importorskip("huggingface_hub.errors")
    variables, path = saved
    asked = []

    def download(repository, name, revision=None):
        asked.append((repository, name, revision))
        if name != "pytorch_model.bin":
            raise errors.LocalEntryNotFoundError("offline") if offline else missing
        return str(path)

    missing = errors.EntryNotFoundError("no such file")
    monkeypatch.setattr(hub, "hf_hub_download", download)
    offline = False
    assert_same(load_pretrained("small.a1_in1k", model=SMALL, revision="v2"), variables)
    assert asked[-1] == ("timm/small.a1_in1k", "pytorch_model.bin", "v2")
    offline = True
    with pytest.raises(WeightsError, match=r"could not be fetched.*network.*load_weights"):
        load_pretrained("microsoft/resnet-50")
    assert asked[-1] == ("microsoft/resnet-50", "model.safetensors", None)


def test_ids_of_no_network_here_are_refused_before_the_download(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(WeightsError, match=r"'vit_base' is none of list_models.*model="):
        load_pretrained("vit_base.augreg_in1k")


def test_paths_that_cannot_be_are_told(saved, tmp_path):
    variables, path = saved
    with pytest.raises(WeightsError, match=r"cannot be read: .*too long"):
        load_weights(SMALL, tmp_path / ("a" * 300))
    for wrong in (tmp_path / ("a" * 300 + ".safetensors"), path / "w.safetensors"):
        with pytest.raises(WeightsError, match=r"cannot write .*(too long|Not a directory)"):
            save_weights(variables, wrong, model=SMALL)
    with pytest.raises(WeightsError, match="does not exist"):
        load_weights(SMALL, path / "w.safetensors")


def test_missing_extras_are_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(WeightsError, match=r"huggingface_hub: pip install 'flax-resnet\[pretr"):
        load_pretrained("resnet50.a1_in1k")
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(WeightsError, match=r"h5py: pip install 'flax-resnet\[pretrained\]'"):
        load_weights("resnet50", tmp_path / "w.h5")


def test_inspect_and_convert(tmp_path, capsys):
    variables = random_variables(create_model("resnet20", num_classes=3))
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    save_weights(variables, source, model="resnet20", layout="huggingface")
    assert main(["inspect", str(source), "--tensors"]) == 0
    text = capsys.readouterr().out
    assert "layout    huggingface" in text and "network   resnet20\n" in text
    assert "classes   3\n" in text and "classifier.1.weight  3×64  float32" in text
    assert main(["convert", str(source), str(target), "--layout", "torchvision"]) == 0
    assert "resnet20, 3 classes" in capsys.readouterr().out
    assert_same(load_weights("resnet20", target), variables)


def test_commands_end_with_one_line_and_their_status(tmp_path):
    run = [sys.executable, "-m", "flax_resnet.weights"]
    failed = subprocess.run([*run, "inspect", str(tmp_path)], capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1
    assert failed.stderr.startswith("error: ") and "directory" in failed.stderr
    with pytest.raises(SystemExit) as usage:
        main(["convert", "a", "b"])
    assert usage.value.code == 2


def test_importing_asks_for_no_optional_package():
    code = "import flax_resnet, sys; print([m for m in sys.modules if m.split('.')[0] in "
    code += "('torch', 'h5py', 'safetensors', 'huggingface_hub', 'train', 'keras')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
