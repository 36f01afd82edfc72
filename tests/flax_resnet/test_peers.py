"""The networks against other people's: the same numbers from the same weights.

Peers are built without downloading anything and given our random parameters and batch-norm
statistics. Small relatives of them, by the peers' own constructors, take one SGD step.
"""

import importlib.util
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet import ResNet, create_model, init_variables, summarize

LEARNING_RATE = 0.1


def randomised(model, size):
    """Variables in which every leaf matters: no unit scales, no zero biases or means."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        spread = {"scale": (0.5, 1.0), "var": (0.5, 1.5), "bias": (-0.2, 0.2), "mean": (-0.2, 0.2)}
        if (kind := path[-1].key) in spread:
            return rng.uniform(*spread[kind], leaf.shape).astype(np.float32)
        return leaf

    variables = init_variables(model, 0, (size, size, 3))
    return jax.tree_util.tree_map_with_path(draw, variables)


def random_images(size, batch=2):
    return np.random.default_rng(1).standard_normal((batch, size, size, 3)).astype(np.float32)


def evaluate(model, variables, images):
    """The endpoints' maps and the logits."""
    maps = model.apply(variables, images, method="endpoints")
    return list(maps.values()), model.apply(variables, images)


def logit_weights(model):
    """The gradient that is compared is that of the logits' sum by these weights."""
    return np.random.default_rng(2).standard_normal((2, model.num_classes)).astype(np.float32)


def images_gradient(model, variables, images):
    weights = logit_weights(model)
    return jax.grad(lambda images: jnp.sum(model.apply(variables, images) * weights))(images)


def cross_entropy(logits, labels):
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels])


def sgd_step(model, variables, images, labels):
    @jax.jit
    def step(variables):
        def loss(params):
            logits, updates = model.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            return cross_entropy(logits, labels), updates

        gradient, updates = jax.grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - LEARNING_RATE * g, variables["params"], gradient)
        return {"params": params} | updates

    return step(variables)


def assert_close(ours, theirs, what):
    """Within 1e-4 of the scale of ``theirs``, everywhere."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, what
    difference = abs(ours - theirs).max() / abs(theirs).max()
    assert difference <= 1e-4, f"{what}: {difference:.1e}"


def assert_close_in_norm(ours, theirs, what, tolerance=2e-2):
    """Within a share of the length of ``theirs``, or of 1e-3 where that vanishes.

    For gradients. They are alike to 1e-4, unless a ReLU's input is zero within rounding and
    passes on one side alone: one such value in a small network makes up to 1e-2. They vanish
    for biases that a later batch norm takes away.
    """
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, what
    difference = np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-3)
    assert difference <= tolerance, f"{what}: {difference:.1e}"


def translate(variables, rules):
    """``{peer's module name: {our leaf: value}}`` by regular expressions on our module paths."""
    modules = {}
    for collection in variables.values():
        for path, value in jax.tree_util.tree_flatten_with_path(collection)[0]:
            *module, leaf = [entry.key for entry in path]
            name = "/".join(module)
            for pattern, replacement in rules:
                name = re.sub(pattern, replacement, name)
            modules.setdefault(name, {})[leaf] = np.asarray(value)
    return modules


def one_less(template):
    """A replacement in which ``<1>`` is the first group's number less one, and so on."""
    return lambda match: re.sub(
        r"<(\d)>", lambda group: str(int(match[int(group[1])]) - 1), match.expand(template)
    )


# PyTorch -----------------------------------------------------------------------------------

HUGGING_FACE = (
    [
        (r"stem_conv", "resnet.embedder.embedder.convolution"),
        (r"stem_norm", "resnet.embedder.embedder.normalization"),
        (r"^head$", "classifier.1"),
        (r"stage(\d)_block(\d+)/", one_less("resnet.encoder.stages.<1>.layers.<2>.")),
        (r"shortcut/conv", "shortcut.convolution"),
        (r"shortcut/norm", "shortcut.normalization"),
        (r"\.conv(\d)$", one_less(".layer.<1>.convolution")),
        (r"\.norm(\d)$", one_less(".layer.<1>.normalization")),
    ],
    ["resnet.embedder", *(f"resnet.encoder.stages.{i}" for i in range(4))],
)
TIMM = (
    [
        (r"^stem_conv$", "conv1"),
        (r"^stem_norm$|^stem_norm3$", "bn1"),
        (r"^stem_conv([123])$", lambda match: f"conv1.{3 * int(match[1]) - 3}"),
        (r"^stem_norm([12])$", lambda match: f"conv1.{3 * int(match[1]) - 2}"),
        (r"^stem_conv4$", "maxpool.0"),
        (r"^stem_norm4$", "maxpool.1"),
        (r"^head$", "fc"),
        (r"stage(\d)_block(\d+)/", one_less(r"layer\1.<2>.")),
        (r"shortcut/conv", "downsample.0"),
        (r"shortcut/norm", "downsample.1"),
        (r"\.norm(\d)$", r".bn\1"),
        (r"se/reduce", "se.fc1"),
        (r"se/expand", "se.fc2"),
    ],
    ["maxpool", "layer1", "layer2", "layer3", "layer4"],
)
# An average pool comes first in these shortcuts.
TIMM_D = (
    [(r"shortcut/conv", "downsample.1"), (r"shortcut/norm", "downsample.2"), *TIMM[0]],
    TIMM[1],
)
TIMM_BIT = (
    [
        (r"stem_conv", "stem.conv"),
        (r"^final_norm$", "norm"),
        (r"^head$", "head.fc"),
        (r"stage(\d)_block(\d+)/", one_less("stages.<1>.blocks.<2>.")),
        (r"shortcut/conv", "downsample.conv"),
    ],
    ["stem", *(f"stages.{i}" for i in range(4))],
)


def torch_state(variables, rules, net):
    """Our variables as a state dict of ``net``, which names every entry's shape."""
    names = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    state = {}
    for module, leaves in translate(variables, rules).items():
        for leaf, value in leaves.items():
            name = f"{module}.{names.get(leaf, leaf)}"
            if value.ndim > 1:  # output channels come first in PyTorch
                value = np.moveaxis(value, (-1, -2), (0, 1))
            state[name] = value.reshape(shapes[name])
    return state


def load_torch(net, variables, rules):
    torch = pytest.importorskip("torch")
    state = torch_state(variables, rules, net)
    state = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)


def to_torch(images):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def from_torch(images):
    return images.detach().numpy().transpose(0, 2, 3, 1)


def torch_logits(net, images):
    output = net(images)
    return getattr(output, "logits", output)


def check_evaluation_in_torch(net, model, layout, size=64):
    torch = pytest.importorskip("torch")
    rules, endpoints = layout
    variables, images = randomised(model, size), random_images(size)
    maps, logits = evaluate(model, variables, images)

    load_torch(net.eval(), variables, rules)
    seen = {}
    for name in endpoints:
        net.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: output})
        )
    with torch.no_grad():
        their_logits = torch_logits(net, to_torch(images))
    assert_close(logits, their_logits, "logits")
    for ours, name in zip(maps, endpoints, strict=True):
        assert_close(ours, from_torch(seen[name]), name)


def check_sgd_step_in_torch(net, model, layout, size=32, batch=8):
    torch = pytest.importorskip("torch")
    rules, _ = layout
    variables, images = randomised(model, size), random_images(size, batch)
    labels = np.arange(batch) % model.num_classes
    ours = sgd_step(model, variables, images, labels)

    load_torch(net.train(), variables, rules)
    before = torch_state(variables, rules, net)
    counts = {}  # values that each norm averages over
    for name, module in net.named_modules():
        if hasattr(module, "running_var"):
            module.register_forward_hook(
                lambda module, args, output, name=name: counts.update(
                    {name: args[0].numel() // args[0].shape[1]}
                )
            )
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
    logits = torch_logits(net, to_torch(images))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    optimizer.step()

    theirs = net.state_dict()
    for name, value in torch_state(ours, rules, net).items():
        our_change, their_change = value - before[name], theirs[name].numpy() - before[name]
        if name.endswith("running_var"):
            # PyTorch's running variance is unbiased: n / (n - 1) of the batch's.
            n = counts[name.removesuffix(".running_var")]
            batch_part = 0.1 * before[name]
            their_change = (their_change + batch_part) * (n - 1) / n - batch_part
        tolerance = 1e-4 if "running" in name else 2e-2
        assert_close_in_norm(our_change, their_change, name, tolerance)


@pytest.fixture(scope="module")
def torch():
    """PyTorch, with torchvision made importable where its compiled operators do not fit."""
    torch = pytest.importorskip("torch", reason="the PyTorch peers need torch")
    torchvision = importlib.util.find_spec("torchvision")
    if torchvision is None or hasattr(torch.ops.torchvision, "nms"):
        yield torch
        return
    # Importing it only registers the operators' shapes: their names are enough.
    source = pathlib.Path(torchvision.origin).with_name("_meta_registrations.py").read_text()
    names = re.findall(r"register_meta\(\"(\w+)\"|\"torchvision::(\w+)\"", source)
    operators = torch.library.Library("torchvision", "DEF")
    for name in sorted({first or second for first, second in names}):
        operators.define(f"{name}() -> ()")
    yield torch  # the operators live as long as the library


@pytest.fixture(scope="module")
def hugging_face(torch):
    """Makes Hugging Face's network for the fields of ours."""
    transformers = pytest.importorskip("transformers", reason="the peer is transformers")

    def make(model):
        basic = model.block == "residual"
        config = transformers.ResNetConfig(
            embedding_size=model.width,
            hidden_sizes=[feature.channels for feature in model.feature_info.values()][1:],
            depths=list(model.stage_sizes),
            layer_type="basic" if basic else "bottleneck",
            downsample_in_bottleneck=model.stride_conv == "1x1",
            num_labels=model.num_classes,
        )
        return transformers.ResNetForImageClassification(config)

    return make


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50_v1"])
def test_hugging_face_evaluates_alike(hugging_face, name):
    model = create_model(name, norm_epsilon=1e-5)
    check_evaluation_in_torch(hugging_face(model), model, HUGGING_FACE)


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "resnet50_v1"])
def test_multiply_adds_are_what_pytorch_counts(torch, hugging_face, name):
    from torch.utils.flop_counter import FlopCounterMode

    model = create_model(name)
    net = hugging_face(model).to("meta")
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros((1, 3, 224, 224), device="meta"))
    assert 2 * summarize(model, 224).multiply_adds == counter.get_total_flops()


@pytest.mark.parametrize(
    ("block", "stride_conv"), [("residual", "3x3"), ("bottleneck", "3x3"), ("bottleneck", "1x1")]
)
def test_hugging_face_takes_the_same_sgd_step(hugging_face, block, stride_conv):
    model = ResNet((2, 1), block=block, width=16, stride_conv=stride_conv, num_classes=4)
    check_sgd_step_in_torch(hugging_face(model), model, HUGGING_FACE)


@pytest.fixture(scope="module")
def timm(torch):
    for name in ("timm", "torchvision"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"the peer timm needs {name}")
    return pytest.importorskip("timm")


TIMM_MODELS = {
    "resnet18": TIMM,
    "resnet50": TIMM,
    "resnext50_32x4d": TIMM,
    "wide_resnet50_2": TIMM,
    "seresnet50": TIMM,
    "resnet50_gn": TIMM,
    "resnet50d": TIMM_D,
    "resnetrs50": TIMM_D,
    "resnetv2_50x1_bit": TIMM_BIT,
}


@pytest.mark.parametrize("name", TIMM_MODELS)
def test_timm_evaluates_alike(timm, name):
    net = timm.create_model(name, pretrained=False, num_classes=1000)
    check_evaluation_in_torch(net, create_model(name), TIMM_MODELS[name])


@pytest.mark.parametrize("name", ["resnext50_32x4d", "seresnet50", "resnetrs50"])
def test_timm_takes_the_same_sgd_step(timm, name):
    net = timm.create_model(
        name, pretrained=False, layers=(1,) * 4, channels=(32, 64, 128, 256), num_classes=4
    )
    model = create_model(name, stage_sizes=(1,) * 4, width=32, stem_width=64, num_classes=4)
    check_sgd_step_in_torch(net, model, TIMM_MODELS[name], size=64)


def test_timm_takes_the_same_sgd_step_with_standardised_weights(timm):
    from timm.models.resnetv2 import ResNetV2

    net = ResNetV2((1, 2), (128, 256), num_classes=4, stem_chs=32, stem_type="fixed")
    model = create_model("resnetv2_50x1_bit", stage_sizes=(1, 2), width=32, num_classes=4)
    check_sgd_step_in_torch(net, model, TIMM_BIT)


# Keras -------------------------------------------------------------------------------------

KERAS = [
    (r"^stem_conv$", "conv1_conv"),
    (r"^stem_norm$", "conv1_bn"),
    (r"^final_norm$", "post_bn"),
    (r"^head$", "predictions"),
    (r"stage(\d)_block(\d+)/", lambda match: f"conv{int(match[1]) + 1}_block{match[2]}_"),
    (r"shortcut/(conv|norm)", r"0_\1"),
    (r"_conv(\d)$", r"_\1_conv"),
    (r"_norm(\d)$", r"_\1_norm"),
]
KERAS_V1 = [*KERAS, (r"_norm$", "_bn")]
# Norms precede the convolutions that they are numbered by in ours.
KERAS_V2 = [
    *KERAS,
    (r"_1_norm$", "_preact_bn"),
    (r"_(\d)_norm$", one_less("_<1>_bn")),
]


@pytest.fixture(scope="module")
def keras():
    os.environ["KERAS_BACKEND"] = "jax"
    keras = pytest.importorskip("keras", reason="the peer is keras")
    if keras.backend.backend() != "jax":
        pytest.skip("keras was imported with another backend than JAX")
    return keras


def keras_leaves(net):
    """``{(layer's name, our name of the leaf): the peer's variable}``."""
    names = {"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"}
    return {
        (layer.name, names.get(variable.name, variable.name)): variable
        for layer in net.layers
        for variable in layer.weights
    }


def load_keras(net, variables, rules):
    theirs = keras_leaves(net)
    ours = {
        (module, leaf): value
        for module, leaves in translate(variables, rules).items()
        for leaf, value in leaves.items()
    }
    assert set(ours) == set(theirs)
    for key, variable in theirs.items():
        variable.assign(ours[key])


def keras_model(name):
    """Ours with Keras's redundant biases, and the rules of its names."""
    if name.endswith("V2"):
        return create_model(name.lower()), KERAS_V2
    return create_model(f"{name.lower()}_v1", conv_bias="all"), KERAS_V1


@pytest.mark.parametrize(
    "name", ["ResNet50", "ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2"]
)
def test_keras_evaluates_alike(keras, name):
    model, rules = keras_model(name)
    variables, images = randomised(model, 64), random_images(64)
    net = getattr(keras.applications, name)(
        weights=None, input_shape=(64, 64, 3), classifier_activation=None
    )
    load_keras(net, variables, rules)
    maps, logits = evaluate(model, variables, images)

    lasts = [f"conv{i + 2}_block{blocks}_out" for i, blocks in enumerate(model.stage_sizes)]
    names = ["pool1_pool", *lasts]
    peer = keras.Model(net.inputs, [*(net.get_layer(name).output for name in names), net.output])

    *their_maps, their_logits = peer([images], training=False)
    assert_close(logits, their_logits, "logits")
    for ours, theirs, layer in zip(maps, their_maps, names, strict=True):
        assert_close(ours, theirs, layer)
    if name in ("ResNet50", "ResNet50V2"):
        weights = logit_weights(model)
        theirs = jax.grad(lambda images: jnp.sum(peer([images])[-1] * weights))(images)
        assert_close_in_norm(images_gradient(model, variables, images), theirs, "gradient")


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_keras_takes_the_same_sgd_step(keras, version):
    from keras.src.applications import resnet

    fields = dict(stage_sizes=(2, 2), width=32, stem_width=64, num_classes=4)
    named, rules = keras_model("ResNet50" if version == "v1" else "ResNet50V2")
    model = named.clone(**fields)
    stack = getattr(resnet, f"stack_residual_blocks_{version}")

    def stages(x):
        x = stack(x, 32, 2, stride1=1 if version == "v1" else 2, name="conv2")
        return stack(x, 64, 2, stride1=2 if version == "v1" else 1, name="conv3")

    net = resnet.ResNet(
        stages,
        preact=version == "v2",
        use_bias=True,
        weights=None,
        weights_name="small",
        input_shape=(32, 32, 3),
        classes=4,
        classifier_activation=None,
    )
    variables, images = randomised(model, 32), random_images(32, 8)
    labels = np.arange(8) % 4
    load_keras(net, variables, rules)

    @jax.jit
    def step(trainable, statistics):
        def loss(trainable):
            logits, statistics_ = net.stateless_call(trainable, statistics, images, training=True)
            return cross_entropy(logits, labels), statistics_

        gradient, updates = jax.grad(loss, has_aux=True)(trainable)
        return [p - LEARNING_RATE * g for p, g in zip(trainable, gradient, strict=True)], updates

    trainable, statistics = step(
        [variable.value for variable in net.trainable_variables],
        [variable.value for variable in net.non_trainable_variables],
    )
    before = {key: np.asarray(variable.value) for key, variable in keras_leaves(net).items()}
    for variable, value in zip(net.trainable_variables, trainable, strict=True):
        variable.assign(value)
    for variable, value in zip(net.non_trainable_variables, statistics, strict=True):
        variable.assign(value)
    theirs = keras_leaves(net)
    for module, leaves in translate(sgd_step(model, variables, images, labels), rules).items():
        for leaf, value in leaves.items():
            key = (module, leaf)
            their_change = np.asarray(theirs[key].value) - before[key]
            tolerance = 1e-4 if leaf in ("mean", "var") else 2e-2
            assert_close_in_norm(value - before[key], their_change, str(key), tolerance)
