"""FCN and DeepLabv3 equal torchvision's: logits, one training step, and weights in both ways."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet import create_model, load_weights, save_weights
from flax_resnet.weights import WeightsError, read_weights
from flax_resnet.weights.leaves import flatten, leaf_shapes
from flax_resnet.weights.naming.layouts import TORCHVISION
from tests.flax_resnet.dense.segmentation_nets import (
    CLASSES,
    HEADS,
    HEIGHT,
    WIDTH,
    model,
    torch_net,
)
from tests.flax_resnet.peers import (
    LEARNING_RATE,
    assert_close,
    assert_close_in_norm,
    assert_same,
    jit,
    peer,
    to_float64,
)
from tests.flax_resnet.torch_nets import from_torch, randomize, to_torch

pytestmark = pytest.mark.peer
AUX_WEIGHT = 0.5  # of torchvision's reference script


def random_images(batch=2):
    return np.random.default_rng(1).standard_normal((batch, HEIGHT, WIDTH, 3), np.float32)


@pytest.fixture(scope="module", params=HEADS)
def net(request, tmp_path_factory):
    """A network of torchvision with random weights and statistics, and a file of them."""
    net = randomize(torch_net(request.param))
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.safetensors"
    torch_files = importlib.import_module("safetensors.torch")
    torch_files.save_file(net.state_dict(), path)
    return request.param, net, path


def test_logits_equal_and_weights_round_trip(net, tmp_path):
    head, theirs, path = net
    ours, images = model(head), random_images()
    variables, report = read_weights(ours, path)
    assert report.complete and report.layout == "torchvision", report
    with peer("torch").no_grad():
        expected = from_torch(theirs(to_torch(images))["out"])
    logits = jit(ours.apply)(variables, images)
    assert logits.dtype == jnp.float32
    assert_close(logits, expected, head)

    save_weights(ours, variables, tmp_path / "saved.safetensors", layout="torchvision")
    state = importlib.import_module("safetensors.torch").load_file(tmp_path / "saved.safetensors")
    torch_net(head).load_state_dict(state, strict=True)
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(state[name], value, name)
    assert_same(load_weights(ours, tmp_path / "saved.safetensors"), variables)


def test_one_sgd_step_with_the_auxiliary_loss_changes_everything_alike(net):
    """In float64; dropout is off, since no two libraries sample the same values."""
    head, theirs, path = net
    torch = peer("torch")
    ours = model(head, dropout=0.0, dtype=jnp.float64)
    labels = np.random.default_rng(2).integers(0, CLASSES, (2, HEIGHT, WIDTH))
    variables = to_float64(load_weights(model(head), path))

    def cross_entropy(logits):
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1).mean()

    @jit
    def step(variables, images):
        def loss(params):
            (logits, aux), updates = ours.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            return cross_entropy(logits) + AUX_WEIGHT * cross_entropy(aux), updates

        gradients, updates = jax.grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - LEARNING_RATE * g, variables["params"], gradients)
        return {"params": params} | updates

    with jax.enable_x64(True):
        after = flatten(jax.device_get(step(variables, to_float64(random_images()))))

    trained = torch_net(head)
    trained.load_state_dict(theirs.state_dict())
    trained = trained.double().train()
    counts = {}  # values that each norm averages over
    for name, module in trained.named_modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "running_var"):
            module.register_forward_hook(
                lambda module, args, output, name=name: counts.update(
                    {name: args[0].numel() // args[0].shape[1]}
                )
            )
    outputs = trained(to_torch(to_float64(random_images())))
    loss = torch.nn.functional.cross_entropy
    targets = torch.from_numpy(labels)
    total = loss(outputs["out"], targets) + AUX_WEIGHT * loss(outputs["aux"], targets)
    optimizer = torch.optim.SGD(trained.parameters(), lr=LEARNING_RATE)
    total.backward()
    optimizer.step()

    before, state = flatten(variables), trained.state_dict()
    assert len(after) == len(before)
    for leaf, value in after.items():
        name = TORCHVISION.file_name(ours, leaf)
        change = state[name].numpy()
        change = change.transpose(2, 3, 1, 0) if change.ndim == 4 else change
        change = change - before[leaf]
        if name.endswith("running_var"):
            # PyTorch's running variance is unbiased: n / (n - 1) of the batch's.
            n = counts[name.removesuffix(".running_var")]
            change = (change + 0.1 * before[leaf]) * (n - 1) / n - 0.1 * before[leaf]
        assert_close_in_norm(value - before[leaf], change, name, tolerance=1e-5)


@pytest.mark.parametrize(
    "name", [f"{head}_{depth}" for head in HEADS for depth in ("resnet50", "resnet101")]
)
def test_names_and_shapes_are_those_of_the_published_networks(name):
    torch = peer("torch")
    peer("torchvision")
    segmentation = importlib.import_module("torchvision.models.segmentation")
    with torch.device("meta"):
        net = getattr(segmentation, name)(weights=None, weights_backbone=None, aux_loss=True)
    theirs = {
        tensor: tuple(value.shape)
        for tensor, value in net.state_dict().items()
        if not tensor.endswith("num_batches_tracked")
    }
    ours = create_model(name, aux_head=True)
    shapes = {TORCHVISION.file_name(ours, p): shape for p, shape in leaf_shapes(ours).items()}
    assert {n: (s[3], s[2], *s[:2]) if len(s) == 4 else s for n, s in shapes.items()} == theirs


def test_a_head_of_another_kind_or_number_of_classes_is_new(net):
    head, _, path = net
    other = model(next(each for each in HEADS if each != head))
    variables, report = read_weights(other, path)
    assert "head is new: the file has no such head" in report.notes
    assert all(name.split("/")[1] == "head" for name in report.missing)
    assert not report.mismatched
    assert "params/aux_head/classifier/kernel" in report.loaded
    same = load_weights(model(head), path)
    assert_same(variables["params"]["backbone"], same["params"]["backbone"])

    variables, report = read_weights(model(head, num_classes=3), path)
    assert {name for name, *_ in report.mismatched} == {
        f"params/{each}/classifier/{leaf}"
        for each in ("head", "aux_head")
        for leaf in ("bias", "kernel")
    }
    assert not report.missing
    assert_same(variables["params"]["head"]["layer1"], same["params"]["head"]["layer1"])


def test_a_backbone_from_a_classification_file_and_back(net, tmp_path):
    head, _, path = net
    ours = model(head)
    fields = dict(stage_sizes=(1, 1, 2, 2), width=8, stem_width=64)
    classifier = create_model("resnet50", num_classes=9, **fields)
    images = random_images()[:, :32, :32]

    # The backbone of a segmentation file in a network for classification.
    variables, report = read_weights(classifier, path)
    assert {"params/head/bias", "params/head/kernel"} == set(report.missing)
    assert all(name.startswith(("classifier.", "aux_classifier.")) for name in report.skipped)

    # The backbone of a classification file in a network for segmentation.
    save_weights(classifier, variables, tmp_path / "classifier.safetensors")
    dense, report = read_weights(ours, tmp_path / "classifier.safetensors")
    assert {name.split("/")[1] for name in report.missing} == {"head", "aux_head"}
    assert set(report.skipped) == {"fc.weight", "fc.bias"}
    assert "head is new: the file has no such head" in str(report)
    backbone = {name: dense[name]["backbone"] for name in dense}
    for stage, theirs in classifier.apply(variables, images, method="endpoints").items():
        maps = classifier.apply(backbone, images, method="endpoints")
        np.testing.assert_array_equal(maps[stage], theirs, stage)


def test_files_of_this_library_and_wrapped_networks_are_read(net, tmp_path):
    head, theirs, path = net
    ours = model(head)
    variables = load_weights(ours, path)
    save_weights(ours, variables, tmp_path / "flax.safetensors", layout="flax")
    again, report = read_weights(ours, tmp_path / "flax.safetensors")
    assert report.complete, report
    assert_same(again, variables)

    state = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    peer("torch").save({"model": state, "epoch": 3}, tmp_path / "checkpoint.pth")
    again, report = read_weights(ours, tmp_path / "checkpoint.pth")
    assert not (report.missing or report.mismatched), report
    assert_same(again, variables)

    with pytest.raises(WeightsError, match="timm layout has no name for"):
        save_weights(ours, variables, tmp_path / "timm.safetensors", layout="timm")


def test_other_dilations_than_the_file_are_doubted(net, tmp_path, caplog):
    head, _, path = net
    ours = model(head, output_stride=16)
    variables = load_weights(ours, path)  # torchvision's file does not show its dilations
    save_weights(ours, variables, tmp_path / "stride16.safetensors")
    assert "no network of torchvision has output_stride=16" in caplog.text
    _, report = read_weights(model(head), tmp_path / "stride16.safetensors")
    assert any("output_stride=16, this one has 8" in doubt for doubt in report.doubts)
