"""PyTorch's networks compared with ours: same weights, same results."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np

from tests.flax_resnet.peers import (
    LEARNING_RATE,
    assert_close,
    assert_close_in_norm,
    evaluate,
    images_gradient,
    logit_weights,
    peer,
    random_images,
    randomized,
    sgd_step,
    to_float64,
    translate,
)


def torch_net(library, name, **options):
    """Return a network of timm or torchvision with its own random weights."""
    module = peer(library)
    if library == "timm":
        return module.create_model(name, pretrained=False, **options)
    return getattr(importlib.import_module("torchvision.models"), name)(**options)


def hugging_face_net(model):
    """Return Hugging Face's network for the fields of ours."""
    transformers = peer("transformers")
    config = transformers.ResNetConfig(
        embedding_size=model.width,
        hidden_sizes=[feature.channels for feature in model.feature_info.values()][1:],
        depths=list(model.stage_sizes),
        layer_type="basic" if model.block == "residual" else "bottleneck",
        downsample_in_bottleneck=model.stride_conv == "1x1",
        num_labels=model.num_classes,
    )
    return transformers.ResNetForImageClassification(config)


def torch_logits(net, images):
    output = net(images)
    return getattr(output, "logits", output)


def randomize(net, seed=0):
    """Randomize all weights and statistics of a PyTorch network, with logits of moderate scale."""
    torch = peer("torch")
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor):
        return torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        # Not fixed filters of a network, which no file has.
        for name, tensor in net.state_dict().items():
            if tensor.ndim > 1:
                tensor.copy_(normal(tensor) * (2 / tensor[0].numel()) ** 0.5)
            elif name.endswith("running_var"):
                tensor.copy_(torch.exp(0.3 * normal(tensor)))
            elif tensor.is_floating_point():
                scale = name.endswith("weight")
                tensor.copy_((0.6 if scale else 0) + 0.1 * normal(tensor))
    return net.eval()


def to_torch(images):
    return peer("torch").from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def evaluated(net, images):
    """Return the logits of a network in evaluation mode."""
    with peer("torch").no_grad():
        return torch_logits(net, to_torch(images)).numpy()


def from_torch(images):
    return images.detach().numpy().transpose(0, 2, 3, 1)


def torch_state(variables, rules, net):
    """Return our variables as a state dict with the names and shapes of ``net``."""
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


def load(net, variables, rules):
    torch = peer("torch")
    state = torch_state(variables, rules, net)
    state = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)


def check_evaluation(net, model, rules, endpoints, size=64):
    """Compare logits, and maps with the outputs of the modules named ``endpoints``."""
    variables, images = randomized(model, size), random_images(size)
    maps, logits = evaluate(model, variables, images)

    load(net.eval(), variables, rules)
    outputs = {}
    for name in endpoints:
        net.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: outputs.update({name: output})
        )
    with peer("torch").no_grad():
        their_logits = torch_logits(net, to_torch(images))
    assert_close(logits, their_logits, "logits")
    for ours, name in zip(maps, endpoints, strict=True):
        assert_close(ours, from_torch(outputs[name]), name)


def check_images_gradient(net, model, rules, size=64):
    """Compare the gradient in evaluation mode with respect to the images, in float64."""
    with jax.enable_x64(True):
        variables = to_float64(randomized(model, size))
        images = to_float64(random_images(size))
        ours = images_gradient(model.clone(dtype=jnp.float64), variables, images)

    load(net.double().eval(), variables, rules)
    inputs = to_torch(images).requires_grad_()
    weights = peer("torch").from_numpy(logit_weights(model))
    (torch_logits(net, inputs) * weights).sum().backward()
    assert_close_in_norm(ours, from_torch(inputs.grad), "images")


def check_sgd_step(net, model, rules, size=32, batch=8):
    """Compare the change of every parameter and statistic in one training step, in float64.

    The gradient with respect to the images is compared, too.
    """
    torch = peer("torch")
    labels = np.arange(batch) % model.num_classes
    with jax.enable_x64(True):
        variables = to_float64(randomized(model, size))
        images = to_float64(random_images(size, batch))
        ours, our_gradient = sgd_step(model.clone(dtype=jnp.float64), variables, images, labels)

    load(net.double().train(), variables, rules)
    before = torch_state(variables, rules, net)
    counts = {}  # values that each norm averages over
    for name, module in net.named_modules():
        if hasattr(module, "running_var"):
            module.register_forward_hook(
                lambda module, args, output, name=name: counts.update(
                    {name: args[0].numel() // args[0].shape[1]}
                )
            )
    inputs = to_torch(images).requires_grad_()
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
    logits = torch_logits(net, inputs)
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    optimizer.step()

    assert_close_in_norm(our_gradient, from_torch(inputs.grad), "images")
    theirs = net.state_dict()
    for name, value in torch_state(ours, rules, net).items():
        our_change, their_change = value - before[name], theirs[name].numpy() - before[name]
        if name.endswith("running_var"):
            # PyTorch's running variance is unbiased: n / (n - 1) of the batch's.
            n = counts[name.removesuffix(".running_var")]
            batch_part = 0.1 * before[name]
            their_change = (their_change + batch_part) * (n - 1) / n - batch_part
        assert_close_in_norm(our_change, their_change, name)
