"""Write the golden files with the real libraries: python -m tests.flax_resnet.weights.goldens.make

Needs torch, torchvision, timm, transformers and Keras. ``goldens.json.xz`` holds

- ``networks``: small networks by name, with the fields of ours, the tensors' names and shapes,
  and the logits that the library computes for ``golden_images()``;
- ``published``: names and shapes of the full-size networks by library and name.

``torch.pth`` is a file of torch.save.
"""

import json
import lzma
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from flax_resnet import create_model
from tests.flax_resnet.keras_nets import keras_and_ours, small_net
from tests.flax_resnet.peers import import_torchvision
from tests.flax_resnet.torch_nets import evaluated, hugging_face_net, torch_net
from tests.flax_resnet.weights.goldens.values import CLASSES, golden_images, golden_tensor

FOLDER = Path(__file__).parent

SMALL = {"stage_sizes": (1, 2), "width": 8, "num_classes": CLASSES}


def torch_networks():
    """Yield the name, layout, variant and fields of ours, and the library's small network."""
    import_torchvision()
    import timm
    import torchvision.models.resnet as tv
    import transformers
    from timm.layers import StdConv2d

    # torchvision fixes the widths.
    fields = {"stage_sizes": (1, 2, 1, 1), "num_classes": CLASSES}
    net = tv.ResNet(tv.BasicBlock, [1, 2, 1, 1], num_classes=CLASSES)
    yield "torchvision residual", "torchvision", "resnet18", fields, net

    channels = (16, 32, 64, 128)
    for name, depth, stem_width in (
        ("seresnet50", (1, 2, 1, 1), 64), ("resnet50d", (1,) * 4, 64), ("resnetrs50", (1,) * 4, 64)
    ):  # fmt: skip
        fields = SMALL | {"stage_sizes": depth, "width": 16, "stem_width": stem_width}
        net = torch_net("timm", name, layers=depth, channels=channels, num_classes=CLASSES)
        yield f"timm {name}", "timm", name, fields, net
    bit = SMALL | {"width": 32}
    yield (
        *("timm big transfer", "timm", "resnetv2_50x1_bit", bit),
        timm.models.resnetv2.ResNetV2(
            (1, 2), (128, 256), num_classes=CLASSES, stem_chs=32, stem_type="fixed",
            conv_layer=StdConv2d,
        ),
    )  # fmt: skip

    for name in ("resnet18", "resnet50", "resnet50_v1"):
        fields = SMALL | {"norm_epsilon": 1e-5, "width": 4}
        net = hugging_face_net(create_model(name, **fields))
        yield f"huggingface {name}", "huggingface", name, fields, net
    config = transformers.BitConfig(
        embedding_size=32, hidden_sizes=[128, 256], depths=[1, 2], num_labels=CLASSES
    )
    net = transformers.BitForImageClassification(config)
    yield "huggingface big transfer", "huggingface", "resnetv2_50x1_bit", bit, net


def golden_state(net):
    """Return the values of a PyTorch network's state dict."""
    import torch

    return {
        name: torch.from_numpy(golden_tensor(name, tuple(tensor.shape)))
        for name, tensor in net.state_dict().items()
    }


def shapes(state):
    return {name: list(tensor.shape) for name, tensor in state.items()}


def keras_tensors(net):
    return {f"{layer.name}/{v.name}": v for layer in net.layers for v in layer.weights}


def keras_networks():
    """Yield the name, layout, variant and fields of ours, and the library's small network."""
    for version, name in ((1, "resnet50_v1"), (2, "resnet50v2")):
        fields = SMALL | {"stage_sizes": (2, 2), "stem_width": 64}  # Keras has fixed the stem
        net = small_net(version, (2, 2), SMALL["width"], 32, CLASSES)
        yield f"keras {name}", "keras", name, fields, net


def published():
    """Return the names and shapes of the full-size networks."""
    import torch
    import transformers

    plain = ["resnet18", "resnet50", "resnet101"]  # 23 blocks in a stage
    timm_only = ["seresnet50", "resnet50d", "resnetrs50", "resnet50_gn", "resnetv2_50x1_bit"]
    tables = {}
    with torch.device("meta"):
        for library, names in (
            ("torchvision", [*plain, "resnext50_32x4d", "wide_resnet50_2"]),
            ("timm", [*plain, *timm_only]),
        ):
            tables[library] = {
                name: shapes(torch_net(library, name, num_classes=1000).state_dict())
                for name in names
            }
        tables["huggingface"] = {
            name: shapes(hugging_face_net(create_model(name)).state_dict()) for name in plain
        }
        config = transformers.BitConfig(num_labels=1000)
        net = transformers.BitForImageClassification(config)
        tables["huggingface"]["resnetv2_50x1_bit"] = shapes(net.state_dict())
    tables["keras"] = {}
    for name in ("ResNet50", "ResNet50V2"):
        net, _, _ = keras_and_ours(name)
        ours = name.lower() if name.endswith("V2") else f"{name.lower()}_v1"
        tables["keras"][ours] = shapes(keras_tensors(net))
    return tables


def main():
    import torch

    networks, images = {}, golden_images()
    for name, layout, variant, fields, net in torch_networks():
        state = golden_state(net)
        net.load_state_dict(state, strict=True)
        networks[name] = {
            "layout": layout, "variant": variant, "fields": fields, "tensors": shapes(state),
            "logits": evaluated(net.eval(), images).tolist(),
        }  # fmt: skip
        if name == "huggingface resnet18":
            torch.save(state, FOLDER / "torch.pth")
    for name, layout, variant, fields, net in keras_networks():
        for tensor, variable in keras_tensors(net).items():
            variable.assign(golden_tensor(tensor, variable.shape, out_axis=-1))
        networks[name] = {
            "layout": layout, "variant": variant, "fields": fields,
            "tensors": shapes(keras_tensors(net)),
            "logits": np.asarray(net(images)).tolist(),
        }  # fmt: skip
    for name, network in networks.items():
        print(f"{name}: logits of standard deviation {np.std(network['logits']):.3g}")
    text = json.dumps({"networks": networks, "published": published()})
    (FOLDER / "goldens.json.xz").write_bytes(lzma.compress(text.encode(), preset=9))


if __name__ == "__main__":
    main()
