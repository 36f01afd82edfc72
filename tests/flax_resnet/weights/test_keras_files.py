"""Test loading the weights of Keras networks from every file format that Keras writes."""

import jax
import numpy as np
import pytest

from flax_resnet import load_weights
from flax_resnet.preprocessing import normalize
from flax_resnet.weights import WeightsError, find_preprocessing, read_weights
from tests.flax_resnet.keras_nets import RULES, as_theirs, named_variables, small_model, small_net
from tests.flax_resnet.peers import assert_close, peer, random_images

pytestmark = pytest.mark.peer


def randomize(net, seed=0):
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


def save(net, path):
    (net.save_weights if path.name.endswith(".weights.h5") else net.save)(path)


@pytest.fixture(scope="module", params=[1, 2])
def version(request):
    """The version of the network: Keras has ResNets and pre-activation ResNets (v2)."""
    return request.param


@pytest.fixture(scope="module")
def net(version):
    """A small network with all weights and statistics random."""
    return randomize(small_net(version))


def test_all_formats_give_the_same_logits(version, net, tmp_path):
    peer("h5py")
    model, images = small_model(version), random_images()
    apply = jax.jit(model.apply)
    expected = net(images)
    for suffix in (".h5", ".weights.h5", ".keras"):
        path = tmp_path / f"w{suffix}"
        save(net, path)
        variables, report = read_weights(model, path)
        assert report.complete and report.layout == "keras", report
        assert_close(apply(variables, images), expected, suffix)
        path.write_bytes(path.read_bytes()[:50_000])
        with pytest.raises(WeightsError, match="corrupt or truncated"):
            load_weights(model, path)


def test_blocks_with_two_digit_numbers_are_in_order(version, tmp_path):
    """``conv3_block10`` comes before ``conv3_block2`` in an HDF5 file."""
    peer("h5py")
    fields = dict(version=version, stage_sizes=(2, 11), width=4)
    net = randomize(small_net(**fields))
    kernels = {key: leaf for key, leaf in named_variables(net).items() if key[1] == "kernel"}
    assert ("conv3_block11_1_conv", "kernel") in kernels
    for suffix in (".h5", ".weights.h5"):
        path = tmp_path / f"w{suffix}"
        save(net, path)
        variables = load_weights(small_model(**fields), path)
        ours = as_theirs({"params": variables["params"]}, RULES[version])
        for key, kernel in kernels.items():
            np.testing.assert_array_equal(ours[key], kernel, str(key))


def test_other_epsilon_is_folded_and_other_stride_is_rejected(version, net, tmp_path):
    net.save(tmp_path / "w.keras")
    same = load_weights(small_model(version), tmp_path / "w.keras")
    other = load_weights(small_model(version, norm_epsilon=1e-3), tmp_path / "w.keras")
    norm = ("batch_stats", "stage1_block1", "norm1", "var")
    for key in norm:
        same, other = same[key], other[key]
    np.testing.assert_allclose(same + 1.001e-5, other + 1e-3, rtol=1e-6)
    other_stride = {1: dict(stride_conv="3x3"), 2: dict(stride_block="first")}[version]
    with pytest.raises(WeightsError, match="Keras's network downsamples elsewhere"):
        load_weights(small_model(version, **other_stride), tmp_path / "w.keras")


def test_nested_keras_model_is_loaded(version, net, tmp_path):
    keras, h5py = peer("keras"), peer("h5py")
    outer = keras.Sequential(
        [
            keras.Model(net.input, net.layers[-2].output),
            keras.layers.Dense(3, name="mine"),
        ]
    )
    outer.compile("adam")
    outer.optimizer.build(outer.trainable_variables)  # its state is saved in the files too
    outer.save(tmp_path / "w.keras")
    outer.save(tmp_path / "w.h5")
    model = small_model(version)
    for name in ("w.keras", "w.h5"):
        variables, report = read_weights(model, tmp_path / name)
        assert sorted(report.skipped) == ["mine/bias", "mine/kernel"]
        assert report.missing == ("params/head/bias", "params/head/kernel")
        stem = net.get_layer("conv1_conv").kernel
        np.testing.assert_array_equal(variables["params"]["stem_conv"]["kernel"], stem)
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(WeightsError, match="its 0 tensors"):
        load_weights(model, tmp_path / "empty.h5")


def test_stem_that_takes_rgb_is_exact_up_to_the_border(version, net, tmp_path):
    """Every pixel of the stem's map, since a mean that is folded into a bias fails in the padding.

    Both read the same file; Keras gets ``preprocess_input`` of its own.
    """
    keras = peer("keras")
    net.save_weights(tmp_path / "w.weights.h5")
    module = keras.applications.resnet if version == 1 else keras.applications.resnet_v2
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    images[:, :4] = 255  # far from the mean at a border
    stem = keras.Model(net.input, net.get_layer("conv1_conv").output)
    theirs = np.asarray(stem(module.preprocess_input(images.astype("float32"))))

    found = find_preprocessing(tmp_path / "w.weights.h5")
    variables, _ = read_weights(
        small_model(version), tmp_path / "w.weights.h5", fold_image_format=True
    )
    kernel = variables["params"]["stem_conv"]["kernel"]
    ours = jax.lax.conv_general_dilated(
        normalize(images, found.mean, found.std),
        kernel,
        (2, 2),
        ((3, 3), (3, 3)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    ours += variables["params"]["stem_conv"].get("bias", net.get_layer("conv1_conv").bias)
    assert_close(ours, theirs, "stem")


def test_stem_is_folded_before_it_is_adapted_to_gray(version, net, tmp_path):
    """A gray image has the response that it had as RGB, in the range that the run normalizes to."""
    net.save_weights(tmp_path / "w.weights.h5")
    kernels = [
        read_weights(
            small_model(version), tmp_path / "w.weights.h5", channels=n, fold_image_format=True
        )[0]["params"]["stem_conv"]["kernel"]
        for n in (1, 3)
    ]
    np.testing.assert_allclose(kernels[0][:, :, 0], kernels[1].sum(2), rtol=1e-4, atol=1e-4)
