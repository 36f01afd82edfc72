"""Weights against the libraries that they come from and go to, with the same logits.

timm and torchvision import beside PyTorch's CPU build only once the compiled operators
that they register against are declared.
"""

import argparse
import collections
import datetime
import importlib
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet import ResNet, create_model, init_variables, load_weights, save_weights
from flax_resnet.weights import WeightsError, read_weights

pytestmark = pytest.mark.peer
os.environ.setdefault("KERAS_BACKEND", "jax")

OPERATORS = (
    "nms qnms roi_align qroi_align _roi_align_backward roi_pool _roi_pool_backward ps_roi_align"
    " _ps_roi_align_backward ps_roi_pool _ps_roi_pool_backward deform_conv2d"
    " _deform_conv2d_backward"
).split()


_libraries = []


def peer(name):
    """Imports a library, or skips the test where it is not installed."""
    if name.split(".")[0] in ("timm", "torchvision", "transformers"):
        declare_operators(pytest.importorskip("torch"))
    return pytest.importorskip(name)


def declare_operators(torch):
    # transformers imports torchvision where it finds it.
    for operator in OPERATORS:
        if not hasattr(torch.ops.torchvision, operator):
            _libraries.append(torch.library.Library("torchvision", "FRAGMENT"))
            _libraries[-1].define(f"{operator}(Tensor x) -> Tensor")


def randomise(net, seed=0):
    """Every weight and statistic of a PyTorch net random, and the logits of a sane scale."""
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor):
        return torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if tensor.ndim > 1:
                tensor.copy_(normal(tensor) * (2 / tensor[0].numel()) ** 0.5)
            elif name.endswith("running_var"):
                tensor.copy_(torch.exp(0.3 * normal(tensor)))
            elif tensor.is_floating_point():
                scale = name.endswith("weight")
                tensor.copy_((0.6 if scale else 0) + 0.1 * normal(tensor))
    return net.eval()


def images(size=64, count=2):
    return np.random.default_rng(1).standard_normal((count, size, size, 3), np.float32)


def logits_of(net, x):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        out = net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    return np.asarray(getattr(out, "logits", out))


def ours(model, variables, x):
    return np.asarray(jax.jit(model.apply)(variables, x))


def assert_close(a, b):
    assert np.isfinite(b).all() and b.std() > 1e-3
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max())


def random_variables(model, seed=0):
    """Random, with variances and scales that keep the logits sane."""
    rng = np.random.default_rng(seed)

    def leaf(path, value):
        if path[-1].key == "kernel":
            return value
        low, high = (0.5, 1.5) if path[-1].key in ("var", "scale") else (-0.2, 0.2)
        return rng.uniform(low, high, value.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, init_variables(model, seed, (64, 64, 3)))


def torch_net(library, name, classes=11):
    module = peer(library)
    if library == "timm":
        return module.create_model(name, num_classes=classes)
    return getattr(importlib.import_module("torchvision.models"), name)(num_classes=classes)


def huggingface_net(layer_type, depths=(1, 2), width=8, classes=11):
    transformers = peer("transformers")
    expansion = 4 if layer_type == "bottleneck" else 1
    config = transformers.ResNetConfig(
        embedding_size=width,
        hidden_sizes=[width * expansion * 2**i for i in range(len(depths))],
        depths=list(depths),
        layer_type=layer_type,
        num_labels=classes,
    )
    return transformers.ResNetForImageClassification(config)


def test_torchvision_and_timm_nets_go_in_and_out_with_the_same_logits(tmp_path):
    torch = pytest.importorskip("torch")
    safetensors = peer("safetensors.torch")
    net, x = randomise(torch_net("torchvision", "resnet18")), images()
    torch.save(net.state_dict(), tmp_path / "in.pth")
    safetensors.save_file(net.state_dict(), tmp_path / "in.safetensors")
    variables, report = read_weights("resnet18", tmp_path / "in.pth")
    assert report.complete, report
    expected = logits_of(net, x)
    assert_close(ours(create_model("resnet18", num_classes=11), variables, x), expected)
    again = load_weights("resnet18", tmp_path / "in.safetensors")
    jax.tree.map(np.testing.assert_array_equal, variables, again)

    for library in ("torchvision", "timm"):
        save_weights(variables, tmp_path / "out.safetensors", model="resnet18", layout=library)
        again = torch_net(library, "resnet18").eval()
        again.load_state_dict(safetensors.load_file(tmp_path / "out.safetensors"), strict=True)
        assert_close(logits_of(again, x), expected)


PUBLISHED = [
    ("torchvision", "resnet50"),
    ("torchvision", "resnext50_32x4d"),
    ("timm", "seresnet50"),
    ("timm", "resnet50d"),
    ("timm", "resnetrs50"),
    ("timm", "resnetv2_50x1_bit"),
]


@pytest.mark.parametrize(("library", "name"), PUBLISHED)
def test_every_tensor_of_a_published_net_has_its_name_and_shape(library, name, tmp_path):
    torch, safetensors = pytest.importorskip("torch"), peer("safetensors")
    with torch.device("meta"):
        state = torch_net(library, name, classes=1000).state_dict()
    variables = init_variables(create_model(name), 0, (64, 64, 3))
    path = tmp_path / "w.safetensors"
    save_weights(variables, path, model=name, layout=library)
    with safetensors.safe_open(path, "np") as file:
        shapes = {tensor: tuple(file.get_slice(tensor).get_shape()) for tensor in file.keys()}
    assert shapes == {tensor: tuple(value.shape) for tensor, value in state.items()}
    again, report = read_weights(name, path)
    assert report.complete and report.layout in (library, "torchvision"), report
    jax.tree.map(np.testing.assert_array_equal, again, variables)


TIMM_SMALL = {
    "groups": (dict(cardinality=4, base_width=32), dict(groups=4, inner=2)),
    "squeeze": (dict(block_args=dict(attn_layer="se")), dict(squeeze=1 / 16)),
    "d": (
        dict(stem_type="deep", stem_width=16, avg_down=True),
        dict(stem="deep", shortcut="average_pool"),
    ),
}


@pytest.mark.parametrize(("theirs", "fields"), TIMM_SMALL.values(), ids=TIMM_SMALL)
def test_timm_variants_give_the_same_logits(theirs, fields, tmp_path):
    peer("timm")
    safetensors = peer("safetensors.torch")
    resnet = importlib.import_module("timm.models.resnet")

    def make():
        channels = (32, 64, 128, 256)
        return resnet.ResNet(resnet.Bottleneck, (1, 1, 1, 1), 7, channels=channels, **theirs)

    stem = dict(stem_width=64) if "stem" not in fields else dict(stem_width=32)
    model = ResNet((1, 1, 1, 1), width=32, num_classes=7, **stem, **fields)
    net, x = randomise(make()), images()
    safetensors.save_file(net.state_dict(), tmp_path / "in.safetensors")
    variables, report = read_weights(model, tmp_path / "in.safetensors")
    assert report.complete, report
    assert_close(ours(model, variables, x), logits_of(net, x))
    save_weights(variables, tmp_path / "out.safetensors", model=model, layout="timm")
    again = make().eval()
    again.load_state_dict(safetensors.load_file(tmp_path / "out.safetensors"), strict=True)
    np.testing.assert_array_equal(logits_of(again, x), logits_of(net, x))


def test_layouts_refuse_what_their_library_has_no_name_for(tmp_path):
    for name, layout in (("resnet50d", "torchvision"), ("seresnet50", "huggingface")):
        model = create_model(name, stage_sizes=(1, 1), width=16)
        with pytest.raises(WeightsError, match=f"the {layout} layout has no name for s.*timm"):
            save_weights(
                random_variables(model), tmp_path / "w.safetensors", model=model, layout=layout
            )


def test_big_transfer_goes_in_and_out_of_timm_and_hugging_face(tmp_path):
    transformers, safetensors = peer("transformers"), peer("safetensors.torch")
    peer("timm")
    timm = importlib.import_module("timm.models.resnetv2")
    model = create_model("resnetv2_50x1_bit", stage_sizes=(1, 2), width=32, num_classes=7)
    config = transformers.BitConfig(
        embedding_size=32, hidden_sizes=[128, 256], depths=[1, 2], num_labels=7
    )
    conv = importlib.import_module("timm.layers").StdConv2d
    nets = {
        "timm": lambda: timm.ResNetV2(
            (1, 2), (128, 256), num_classes=7, stem_chs=32, stem_type="fixed", conv_layer=conv
        ),
        "huggingface": lambda: transformers.BitForImageClassification(config),
    }
    x = images()
    for layout, make in nets.items():
        net = randomise(make())
        safetensors.save_file(net.state_dict(), tmp_path / "in.safetensors")
        variables, report = read_weights(model, tmp_path / "in.safetensors")
        assert report.complete and report.layout == layout, report
        assert_close(ours(model, variables, x), logits_of(net, x))
        save_weights(variables, tmp_path / "out.safetensors", model=model, layout=layout)
        again = make().eval()
        again.load_state_dict(safetensors.load_file(tmp_path / "out.safetensors"), strict=True)
        np.testing.assert_array_equal(logits_of(again, x), logits_of(net, x))


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
def test_hugging_face_nets_go_in_and_out_with_the_same_logits(layer_type, tmp_path):
    net, x = randomise(huggingface_net(layer_type)), images()
    safetensors = pytest.importorskip("safetensors.torch")
    net.save_pretrained(tmp_path / "whole")
    net.resnet.save_pretrained(tmp_path / "backbone")
    block = {"basic": "residual"}.get(layer_type, layer_type)
    model = ResNet((1, 2), block=block, width=8, num_classes=11)
    variables, report = read_weights(model, tmp_path / "whole")
    assert report.complete, report
    assert_close(ours(model, variables, x), logits_of(net, x))

    backbone, report = read_weights(model, tmp_path / "backbone")
    assert report.missing == ("params/head/bias", "params/head/kernel")
    jax.tree.map(np.testing.assert_array_equal, backbone["batch_stats"], variables["batch_stats"])

    save_weights(variables, tmp_path / "o.safetensors", model=model, layout="huggingface")
    again = huggingface_net(layer_type).eval()
    again.load_state_dict(safetensors.load_file(tmp_path / "o.safetensors"), strict=True)
    np.testing.assert_array_equal(logits_of(again, x), logits_of(net, x))


@pytest.fixture(scope="module")
def small():
    """A small PyTorch net, its fields here, and what its file should give."""
    net = randomise(huggingface_net("bottleneck"))
    return net.state_dict(), ResNet((1, 2), width=8, num_classes=11)


def saved_with_torch(content, path, **options):
    torch = pytest.importorskip("torch")
    torch.save(content, path, **options)
    return path


def reference(state, model, path):
    pytest.importorskip("safetensors.torch").save_file(state, path)
    return load_weights(model, path)


def wrappers(state):
    torch = pytest.importorskip("torch")
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    name = "resnet.encoder.stages.1.layers.0.layer.1.convolution.weight"
    base = state[name]
    wide = torch.zeros(2, *base.shape).copy_(base)
    flipped = base.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    return {
        "plain": dict(state),
        "ordered": collections.OrderedDict(state),
        "state_dict": {"epoch": 3, "state_dict": state, "optimizer": optimizer, "best": 71.5},
        "model": {"model": {"state_dict": state}, "args": argparse.Namespace(lr=0.1, x=[1])},
        "extras": {
            "state_dict": state,
            "best": np.float64(71.5),
            "curve": np.arange(3.0),
            "milestones": collections.Counter([30, 60]),
            "seen": {1, 2},
            "started": datetime.datetime(2026, 1, 1),
            "path": pathlib.PosixPath("runs"),
            "type": torch.float16,
            "device": torch.device("cpu"),
            "sizes": torch.zeros(2, 3).shape,
            "scores": collections.defaultdict(list, a=[1]),
        },
        "module": {"state_dict": {f"module.{name}": t for name, t in state.items()}},
        "parameters": {name: torch.nn.Parameter(t, False) for name, t in state.items()},
        "view": state | {name: wide[1]},
        "non-contiguous": state | {name: flipped},
        "shared": state | {name: base, "unused.copy": base[:2]},
    }


@pytest.mark.parametrize(
    "kind",
    "plain ordered state_dict model extras module parameters view non-contiguous shared".split(),
)
def test_checkpoints_of_every_shape_are_read(kind, small, tmp_path):
    state, model = small
    expected = reference(state, model, tmp_path / "reference.safetensors")
    for protocol in (2, 4):
        path = saved_with_torch(wrappers(state)[kind], tmp_path / "w.pt", pickle_protocol=protocol)
        variables, report = read_weights(model, path)
        jax.tree.map(np.testing.assert_array_equal, variables, expected)
        assert report.skipped == (("unused.copy",) if kind == "shared" else ())
        assert not report.missing and not report.mismatched


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_torch_types_become_float32(dtype, small, tmp_path):
    torch = pytest.importorskip("torch")
    state, model = small
    cast = {
        name: t.to(getattr(torch, dtype)) if t.is_floating_point() else t
        for name, t in state.items()
    }
    variables = load_weights(model, saved_with_torch(cast, tmp_path / "w.bin"))
    back = {name: t.to(torch.float32) for name, t in cast.items()}
    jax.tree.map(np.testing.assert_array_equal, variables, reference(back, model, tmp_path / "r"))


def test_whole_modules_and_the_old_format_are_refused(small, tmp_path):
    torch = pytest.importorskip("torch")
    state, model = small
    with pytest.raises(WeightsError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict\(\)"):
        load_weights(model, saved_with_torch(torch.nn.Linear(2, 2), tmp_path / "w.pth"))
    old = saved_with_torch(state, tmp_path / "o.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"bare pickle"):
        load_weights(model, old)


@pytest.mark.parametrize("keep", [0.3, 0.99])
def test_truncated_torch_files_end_in_one_error(keep, small, tmp_path):
    state, model = small
    path = saved_with_torch(state, tmp_path / "w.pth")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(WeightsError, match="cut short"):
        load_weights(model, path)


def test_a_changed_byte_in_a_torch_file_is_found(small, tmp_path):
    state, model = small
    path = saved_with_torch(state, tmp_path / "w.pth")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(WeightsError, match="damaged"):
        load_weights(model, path)


def test_safetensors_reads_what_is_written_here(tmp_path):
    numpy_side = pytest.importorskip("safetensors.numpy")
    safetensors = pytest.importorskip("safetensors")
    model = create_model("resnet20")
    variables = random_variables(model)
    save_weights(variables, tmp_path / "w.safetensors", model="resnet20")
    tensors = numpy_side.load_file(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(tensors["fc.weight"].T, variables["params"]["head"]["kernel"])
    assert tensors["bn1.num_batches_tracked"].dtype == np.int64
    with safetensors.safe_open(tmp_path / "w.safetensors", "np") as file:
        metadata = file.metadata()
    assert json.loads(metadata.pop("fields"))["shortcut"] == "zero_pad"
    assert metadata == {"format": "pt", "layout": "torchvision", "model": "resnet20"}


def keras_net(version):
    """A small net of Keras's own blocks, with every weight and statistic random."""
    peer("keras")
    resnet = importlib.import_module("keras.src.applications.resnet")
    stack = {1: resnet.stack_residual_blocks_v1, 2: resnet.stack_residual_blocks_v2}[version]
    first, second = {1: (1, 2), 2: (2, 1)}[version]

    def stages(x):
        return stack(stack(x, 64, 2, first, "conv2"), 128, 2, second, "conv3")

    net = resnet.ResNet(
        stages, version == 2, True, weights=None, classes=5, input_shape=(64, 64, 3),
        classifier_activation=None, weights_name="small",
    )  # fmt: skip
    return randomise_keras(net)


def randomise_keras(net, seed=0):
    rng = np.random.default_rng(seed)
    for variable in net.variables:
        shape, name = variable.shape, variable.name
        value = rng.standard_normal(shape) * 0.1
        if len(shape) > 1:
            value *= 10 * (1 / np.prod(shape[:-1])) ** 0.5
        elif name in ("gamma", "moving_variance"):
            value = np.exp(3 * value) * (0.6 if name == "gamma" else 1)
        variable.assign(value)
    return net


KERAS_NAMES = {1: "resnet50_v1", 2: "resnet50v2"}


def keras_model(version, **fields):
    fields = dict(stage_sizes=(2, 2), num_classes=5) | fields
    return create_model(KERAS_NAMES[version], **fields)


@pytest.fixture(scope="module", params=[1, 2])
def keras_pair(request):
    return request.param, keras_net(request.param)


def test_keras_files_give_the_same_logits(keras_pair, tmp_path):
    pytest.importorskip("h5py")
    version, net = keras_pair
    model, x = keras_model(version), images()
    apply = jax.jit(model.apply)
    expected = np.asarray(net(x))
    for suffix in (".h5", ".weights.h5", ".keras"):
        path = tmp_path / f"w{suffix}"
        (net.save_weights if suffix == ".weights.h5" else net.save)(path)
        variables, report = read_weights(model, path)
        assert report.complete and report.layout == "keras", report
        assert_close(np.asarray(apply(variables, x)), expected)
        path.write_bytes(path.read_bytes()[:50_000])
        with pytest.raises(WeightsError, match="cut short"):
            load_weights(model, path)


def test_another_epsilon_and_stride_than_keras(keras_pair, tmp_path):
    version, net = keras_pair
    net.save(tmp_path / "w.keras")
    same = load_weights(keras_model(version), tmp_path / "w.keras")
    other = load_weights(keras_model(version, norm_epsilon=1e-3), tmp_path / "w.keras")
    norm = ("batch_stats", "stage1_block1", "norm1", "var")
    for key in norm:
        same, other = same[key], other[key]
    np.testing.assert_allclose(same + 1.001e-5, other + 1e-3, rtol=1e-6)
    wrong = {1: dict(stride_conv="3x3"), 2: dict(stride_block="first")}[version]
    with pytest.raises(WeightsError, match="Keras halves the maps elsewhere"):
        load_weights(keras_model(version, **wrong), tmp_path / "w.keras")


def test_a_keras_net_inside_another_is_found(keras_pair, tmp_path):
    keras, h5py = peer("keras"), pytest.importorskip("h5py")
    version, keras_small = keras_pair
    outer = keras.Sequential(
        [
            keras.Model(keras_small.input, keras_small.layers[-2].output),
            keras.layers.Dense(3, name="mine"),
        ]
    )
    outer.compile("adam")
    outer.optimizer.build(outer.trainable_variables)  # its state is in the files too
    outer.save(tmp_path / "w.keras")
    outer.save(tmp_path / "w.h5")
    model = keras_model(version)
    for name in ("w.keras", "w.h5"):
        variables, report = read_weights(model, tmp_path / name)
        assert sorted(report.skipped) == ["mine/bias", "mine/kernel"]
        assert report.missing == ("params/head/bias", "params/head/kernel")
        stem = keras_small.get_layer("conv1_conv").kernel
        np.testing.assert_array_equal(variables["params"]["stem_conv"]["kernel"], stem)
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(WeightsError, match="its 0 tensors"):
        load_weights(model, tmp_path / "empty.h5")


def test_bfloat16_in_safetensors(small, tmp_path):
    torch, safetensors = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    state, model = small
    cast = {n: t.bfloat16() if t.is_floating_point() else t for n, t in state.items()}
    safetensors.save_file(cast, tmp_path / "b")
    back = {n: t.to(torch.float32) for n, t in cast.items()}
    expected = reference(back, model, tmp_path / "r")
    jax.tree.map(np.testing.assert_array_equal, load_weights(model, tmp_path / "b"), expected)
    assert jnp.asarray(expected["params"]["head"]["bias"]).dtype == jnp.float32
