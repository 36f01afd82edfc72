"""Weight files that claim more than they hold, by format."""

import io
import json
import pickle
import struct
import zipfile

import numpy as np


def torch_zip(path, program, entries=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, content in entries:
            archive.writestr(name, content)


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value


def number(value):
    raw = value.to_bytes(16, "little")
    return b"\x8a\x10" + raw


STORAGE = (
    b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu") + b"K\x01t"
)
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"QK\x00K\x01\x85K\x01\x85\x89}tR"


def pickles():
    """Return programs by name, each of a few megabytes."""
    million = 10**6
    names = b"".join(text(str(i).encode()) + b"h\x00" for i in range(80_000))
    colliding = b"".join(number((2**61 - 1) * i) + b"K\x01" for i in range(60_000))
    return {
        "objects": b"\x80\x02" + b"}" * 2 * million + b".",
        "memo": b"\x80\x04}" + b"\x94" * 2 * million + b".",
        "sets": b"\x80\x04" + b"\x8f" * 2 * million + b".",
        "nested": b"\x80\x02)" + b"\x85" * 2 * million + b".",
        "wide text": b"\x80\x02" + text(b"a" * 2 * million + "\U0001f600".encode()) + b".",
        "texts": b"\x80\x02" + text(b"a" * 90 + "\U0001f600".encode()) * 25_000 + b".",
        "colliding keys": b"\x80\x02}(" + colliding + b"u.",
        "many tensors": b"\x80\x02" + TENSOR + b"q\x00\x85}(" + names + b"u.",
        "long reference": b"\x80\x02("
        + STORAGE[1:-1]
        + b"K\x01" * 200_000
        + b"tq\x00"
        + b"h\x00Q" * 100_000
        + b".",
        "calls in calls": b"\x80\x02"
        + b"ctorch._tensor\n_rebuild_from_type_v2\nq\x00"
        + b"h\x00K\x01" * 5000
        + b")"
        + b"\x87" * 5000
        + b"R.",
        "itself": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\x00]q\x01(h\x00K\x01h\x01eR.",
    }


def arrays():
    """Return contents of ``.npz`` entries by name, to be compressed."""

    def npy(header, values=b"", version=2):
        length = len(header).to_bytes(2 if version == 1 else 4, "little")
        return b"\x93NUMPY" + bytes([version, 0]) + length + header + values

    def header(descr="'<f4'", shape="()"):
        return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()

    return {
        "blank header": npy(b" " * 3 * 10**7),
        "long shape": npy(header(shape="(" + "1," * 4000 + ")")),
        "nested shape": npy(header(shape="(" * 4000 + ")" * 4000)),
        "nested type": npy(header(descr="[('a', " * 500 + "'<f4'" + ")]" * 500)),
        "zeros": npy(header(shape="(50000000,)"), bytes(2 * 10**8)),
        "claim": npy(header(shape="(281474976710655, 4)")),
        "text": npy(header(descr="'<U536870911'")),
        "subarray": npy(header(descr="'(100000,100000)f4'")),
        "version 3": npy(header(), version=3),
        "empty type": npy(header(descr="'V0'", shape="(2,) * 1")),
    }


def headers():
    """Return headers of safetensors files by name."""

    def table(number, name="{}", **fields):
        entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0], **fields}
        return json.dumps({name.format(i): entry for i in range(number)}).encode()

    return {
        "many tensors": table(100_000),
        "long names": table(1000, "{}" + "a" * 1500),
        "metadata": json.dumps({"__metadata__": {"a": "\U0001f600" * 10**6}}).encode(),
        "deep": b'{"a":' * 10**6,
        "deep metadata": b'{"__metadata__":{"a":' + b"[" * 10**6,
        "long number": table(1, shape=[10**400]),
        "axes": table(1, shape=[1] * 10**5),
        "same name": b"{" + b",".join([table(1, "a")[1:-1]] * 9) + b"}",
        "long digits": table(1, "layer" + "9" * 400 + "{}.0.conv1.weight"),
        "stages": table(9_000, "layer{}.0.conv1.weight"),
    }


def msgpacks():
    """Return msgpack files by name."""

    def key(name):
        return b"\xa1" + name

    def extension(content):
        return b"\xc9" + len(content).to_bytes(4, "big") + b"\x01" + content

    def array(shape, values, dtype=b"\xa7float32"):
        return extension(
            b"\x93" + shape + dtype + b"\xc6" + len(values).to_bytes(4, "big") + values
        )

    def big(value):
        return b"\xcf" + value.to_bytes(8, "big")

    million, long = 10**6, b"\xda\x01\xf4" + b"a" * 500
    innermost = b"\xde\x27\x10" + b"".join(
        b"\xa5%05d" % i + array(b"\x91\x01", bytes(4)) for i in range(10_000)
    )
    return {
        "long names": (b"\x81" + long) * 31 + innermost,
        "maps": b"\x81" + key(b"a") + b"\xdf" + million.to_bytes(4, "big") + b"\xa0\x80" * million,
        "lists": b"\x81" + key(b"a") + b"\xdd" + million.to_bytes(4, "big") + b"\x90" * million,
        "nested maps": b"\x81\xa0" * million,
        "nested lists": b"\x81\xa0" + b"\x91" * million,
        "entries": b"\xdf" + million.to_bytes(4, "big") + b"\xa0\xc0" * million,
        "claimed entries": b"\xdf\xff\xff\xff\xff" + b"\xa0\xc0" * 1000,
        "long key": b"\x81\xdb" + million.to_bytes(4, "big") + b"a" * million + b"\xc0",
        "lists in an array": b"\x81\xa1a" + extension(b"\x93\x92" + b"\x90" * 3 * million),
        "axes": b"\x81\xa1a" + array(b"\xdc\xff\xff" + b"\x01" * 2**16, bytes(4)),
        "claimed values": b"\x81\xa1a" + array(b"\x91" + big(2**47), bytes(4)),
        "huge shape": b"\x81\xa1a" + array(b"\x92" + big(2**63) * 2, bytes(4)),
        "objects": b"\x81\xa1a" + array(b"\x91\x01", bytes(8), b"\xa6object"),
        "same name": b"\x82" + 2 * (b"\xa1a" + array(b"\x91\x01", bytes(4))),
        "rest": b"\x81\xa1a" + array(b"\x91\x01", bytes(4)) + bytes(3 * million),
        "chunks": b"\x81\xa1a\x82\xb9__msgpack_chunked_array__\xc3\xa1b\xc0",
        "truncated": b"\x81\xa1a" + array(b"\x91\x01", bytes(4))[:-1],
    }


def write_all(folder):
    """Write all files into ``folder``; those in HDF5 only if h5py is installed."""
    for name, program in pickles().items():
        torch_zip(folder / f"torch {name}.pth", program, [("archive/data/0", bytes(4))])
        (folder / f"old torch {name}.pth").write_bytes(old_torch(program, ["0"], [bytes(4)]))
    one = b"\x80\x02}(" + text(b"layer1.0.conv1.weight") + TENSOR + b"u."
    claim = old_torch(one, ["0"], [bytes(4)])
    (folder / "old torch claim.pth").write_bytes(claim[:-12] + b"\xff" * 8 + bytes(4))
    (folder / "old torch keys.pth").write_bytes(old_torch(one, ["0"] * 10**5, [bytes(4)] * 10**5))
    overlapping(folder / "torch overlapping.pth")
    for name, content in msgpacks().items():
        (folder / f"msgpack {name}.msgpack").write_bytes(content)
    for name, content in arrays().items():
        with zipfile.ZipFile(folder / f"npz {name}.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", content)
    with zipfile.ZipFile(folder / "npz lzma.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", arrays()["claim"])
    directory(folder / "zip directory.npz", 200_000)
    for name, header in headers().items():
        raw = len(header).to_bytes(8, "little") + header
        (folder / f"safetensors {name}.safetensors").write_bytes(raw)


def directory(path, number):
    """Write an archive whose directory has one entry a number of times."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", *[0] * 9, 5, *[0] * 6) + b"a.npy"
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(entry) * number, 0, 0)
    path.write_bytes(entry * number + end)


def overlapping(path):
    """Write 200 storages of which each has all that follows in the archive as its values."""
    keys = [str(key) for key in range(200)]
    local = [
        struct.pack("<4s5H3I2H", b"PK\3\4", *[0] * 8, len(f"archive/data/{k}"), 0)
        + f"archive/data/{k}".encode()
        for k in keys
    ]
    names = b"".join(
        text(f"layer1.{k}.conv1.weight".encode()) + TENSOR.replace(text(b"0"), text(k.encode()))
        for k in keys
    )
    raw = io.BytesIO()
    torch_zip(raw, b"\x80\x02}(" + names + b"u.")
    start = raw.getvalue()
    first = start.index(b"PK\1\2")
    body, central = start[:first], start[first : start.index(b"PK\5\6")]
    values = bytes(4 * 10**6)
    total = len(body) + sum(map(len, local)) + len(values)
    offset, entries = len(body), [central]
    for key, head in zip(keys, local, strict=True):
        size, name = total - offset - len(head), f"archive/data/{key}".encode()
        entries.append(
            struct.pack("<4s6H3I5H2I", b"PK\1\2", *[0] * 7, size, size, len(name), *[0] * 5, offset)
            + name
        )
        offset += len(head)
    listed = b"".join(entries)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 201, 201, len(listed), total, 0)
    path.write_bytes(body + b"".join(local) + values + listed + end)


def write_hdf5(folder, h5py):
    """Write HDF5 files, and Keras archives with some of them."""

    def write(name, fill, **options):
        with h5py.File(folder / f"hdf5 {name}.h5", "w", **options) as file:
            fill(file)

    def nested(file):
        group = file
        for _ in range(1500):
            group = group.create_group("a")
        group["kernel:0"] = np.zeros(1, np.float32)

    def many(file):
        for index in range(10_500):
            file.create_group(str(index))

    def cycle(file):
        group = file.create_group("a")
        group["b"], group["a"], group["c"] = group, file, h5py.SoftLink("/a/c")
        group["kernel:0"] = np.zeros(3, np.float32)

    def names(file):
        file["a" * 60_000 + "/kernel:0"] = np.zeros(1, np.float32)

    def layer(file):
        group = file.create_group("layers/conv2d/vars")
        group["0"] = np.zeros(1, np.float32)
        return group

    def chunk(file):
        options = {"maxshape": (None,), "chunks": (5 * 10**7,), "compression": "gzip"}
        data = file.create_dataset("a/kernel:0", (3,), "f4", **options)
        data.id.write_direct_chunk((0,), bomb)

    def big_chunk(file):
        file.create_dataset("a/kernel:0", (3,), "f4", maxshape=(None,), chunks=(10**9,))

    def type_of(file):
        kind = h5py.h5t.IEEE_F32LE
        for _ in range(2000):
            kind = h5py.h5t.vlen_create(kind)
        space = h5py.h5s.create_simple((1,))
        h5py.h5d.create(file.id, b"a", kind, space)

    import zlib

    bomb = zlib.compress(bytes(2 * 10**8), 9)
    write("nested", nested)
    write("nested, latest", nested, libver="latest")
    write("many", many)
    write("cycle", cycle)
    write("names", names, libver="latest")
    write("chunk", chunk)
    write("big chunk", big_chunk)
    write("type", type_of, libver="latest")
    write("claim", lambda file: file.create_dataset("a/kernel:0", (10**9,), "f4"))
    write("text", lambda file: layer(file).attrs.create("name", "a" * 10**6))
    texts = ["a" * 60_000] * 100
    write("texts", lambda file: layer(file).attrs.create("name", texts, dtype=h5py.string_dtype()))
    write("link", lambda file: file.update({"a": h5py.ExternalLink("b.h5", "/")}) or None)
    external = [(str(folder / "values"), 0, 4)]
    write("external", lambda f: f.create_dataset("a/kernel:0", (1,), "f4", external=external))
    virtual = h5py.VirtualLayout((1,), "f4")
    virtual[0] = h5py.VirtualSource(str(folder / "b.h5"), "a", (1,))[0]
    write("virtual", lambda file: file.create_virtual_dataset("a/kernel:0", virtual))
    for name in ("nested", "claim", "chunk"):
        with zipfile.ZipFile(folder / f"keras {name}.keras", "w") as archive:
            archive.write(folder / f"hdf5 {name}.h5", "model.weights.h5")
    with zipfile.ZipFile(folder / "keras bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(3 * 10**7))


def old_torch(program, keys=(), values=()):
    """Return a file as PyTorch wrote them before version 1.6."""
    header = 0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}
    pickles = [*(pickle.dumps(part, 2) for part in header), program, pickle.dumps(list(keys), 2)]
    storages = [(len(raw) // 4).to_bytes(8, "little") + raw for raw in values]
    return b"".join([*pickles, *storages])


def write_state_dict(path, arrays, old=False):
    """Write float32 arrays as torch.save does, without PyTorch."""
    items, entries = b"", []
    for key, (name, array) in enumerate(arrays.items()):
        key = str(key).encode()
        shape = b"(" + b"".join(map(number, array.shape)) + b"t"
        strides = b"(" + b"".join(number(s // 4) for s in array.strides) + b"t"
        storage = STORAGE.replace(text(b"0"), text(key))
        items += text(name.encode()) + b"ctorch._utils\n_rebuild_tensor_v2\n("
        items += storage + b"QK\x00" + shape + strides + b"\x89}tR"
        entries.append((f"archive/data/{key.decode()}", array.tobytes()))
    program = b"\x80\x02}(" + items + b"u."
    if old:
        keys = [name.rpartition("/")[2] for name, _ in entries]
        path.write_bytes(old_torch(program, keys, [raw for _, raw in entries]))
    else:
        torch_zip(path, program, entries)
