"""Safetensors files written without the library, and helpers of the weight tests."""

import json

import jax

from flax_resnet import ResNet

SMALL = ResNet((1, 2), block="bottleneck", width=8, num_classes=5)


def flat(variables):
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}


def write_safetensors(path, tensors):
    """Write a file from {name: (type, shape, bytes)}, without any validation."""
    table, offset = {}, 0
    for name, (kind, shape, raw) in tensors.items():
        table[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
    header = json.dumps(table).encode()
    values = b"".join(raw for *_, raw in tensors.values())
    path.write_bytes(len(header).to_bytes(8, "little") + header + values)


def tensors_of(path):
    """Read a file as write_safetensors takes it."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    table, values = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    table.pop("__metadata__", None)
    return {
        name: (entry["dtype"], entry["shape"], values[slice(*entry["data_offsets"])])
        for name, entry in table.items()
    }
