"""Weights of the real libraries' networks, compared where these libraries are not installed.

``goldens/make.py`` has written the names, shapes and logits with the libraries themselves.
"""

import functools
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flax_resnet import create_model, save_weights
from flax_resnet.weights import read_weights
from flax_resnet.weights.leaves import leaf_shapes
from flax_resnet.weights.naming import layouts
from tests.flax_resnet.peers import assert_close, jit
from tests.flax_resnet.weights.goldens.values import golden_images, golden_tensor

GOLDENS = Path(__file__).parent / "goldens"
_TEXT = json.loads(lzma.decompress((GOLDENS / "goldens.json.xz").read_bytes()))
NETWORKS, PUBLISHED = _TEXT["networks"], _TEXT["published"]


def network(name):
    """Return our network of a golden one, and the golden one's tensors."""
    golden = NETWORKS[name]
    model = create_model(golden["variant"], **golden["fields"])
    out_axis = -1 if golden["layout"] == "keras" else 0
    tensors = {
        tensor: golden_tensor(tensor, tuple(shape), out_axis)
        for tensor, shape in golden["tensors"].items()
    }
    return model, tensors


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_give_the_logits_of_the_library_and_are_saved_as_they_were(name, tmp_path):
    model, tensors = network(name)
    layout = NETWORKS[name]["layout"]
    if layout == "keras":
        np.savez(path := tmp_path / "w.npz", **tensors)
    else:
        save_file(tensors, path := tmp_path / "w.safetensors")
    variables, report = read_weights(model, path)
    assert report.layout == layout
    assert not (report.missing or report.mismatched or report.skipped), report
    logits = jit(model.apply)(variables, golden_images())
    assert_close(logits, np.float32(NETWORKS[name]["logits"]), name)
    if layout == "keras":
        return  # there is no writer

    save_weights(model, variables, path, layout=layout)
    saved = load_file(path)
    assert saved.keys() == tensors.keys()
    for tensor, values in tensors.items():
        assert saved[tensor].dtype == values.dtype and saved[tensor].shape == values.shape
        np.testing.assert_array_equal(saved[tensor], values, tensor)


@functools.cache
def shapes_of(model):
    """Return the shapes of all leaves; tracing only two blocks of each stage saves seconds."""
    sizes = [min(2, size) for size in model.stage_sizes]
    shapes = {}
    for leaf, shape in leaf_shapes(model.clone(stage_sizes=tuple(sizes))).items():
        stage, is_second, _ = leaf[1].partition("_block2")
        last = model.stage_sizes[int(stage.removeprefix("stage")) - 1] if is_second else 2
        for block in range(2, last + 1):  # all further blocks are like the second one
            module = f"{stage}_block{block}" if is_second else leaf[1]
            shapes[leaf[0], module, *leaf[2:]] = shape
    return shapes


@pytest.mark.parametrize(
    ("library", "name"), [(library, name) for library in PUBLISHED for name in PUBLISHED[library]]
)
def test_names_and_shapes_are_those_of_published_networks(library, name):
    keras = library == "keras"
    # Keras's ResNets have biases before their norms, which are folded when they are loaded.
    model = create_model(name, **({"conv_bias": "all"} if keras and name.endswith("_v1") else {}))
    layout = layouts.KERAS if keras else layouts.SAVED[library]
    ours = {}
    for leaf, shape in shapes_of(model).items():
        tensor = layout.file_name(model, leaf)
        assert tensor not in ours, tensor
        if not keras and leaf[-1] == "kernel":
            shape = (*shape[:1:-1], *shape[:2]) if len(shape) == 4 else shape[::-1]
        ours[tensor] = shape
        if tensor.endswith(".running_var"):
            ours[tensor.replace("running_var", "num_batches_tracked")] = ()
    theirs = {tensor: tuple(shape) for tensor, shape in PUBLISHED[library][name].items()}
    pointwise = {t: shape[:-2] for t, shape in theirs.items() if shape[2:] == (1, 1)}
    linear = {t: shape for t, shape in pointwise.items() if ours.get(t) == shape}
    assert ours == theirs | linear


def test_file_of_torch_save_is_read():
    """Names and values as ``make.py`` gave them to PyTorch."""
    model, tensors = network("huggingface resnet18")
    variables, report = read_weights(model, GOLDENS / "torch.pth")
    assert report.complete and report.layout == "huggingface"
    logits = jit(model.apply)(variables, golden_images())
    assert_close(logits, np.float32(NETWORKS["huggingface resnet18"]["logits"]), "logits")
    head = tensors["classifier.1.weight"]
    np.testing.assert_array_equal(variables["params"]["head"]["kernel"], head.T)
