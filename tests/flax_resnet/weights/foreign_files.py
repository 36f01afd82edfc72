"""Checkpoints of one small PyTorch network as training scripts of many libraries write them.

A function writes one file with that library, as far as it is installed, and returns what to load
it by: the path, with ``#PART`` where a row names one. The names of libraries that are not installed
are those of their published code.
"""

import argparse
import itertools
import types

import flax.serialization
import numpy as np
from flax.traverse_util import unflatten_dict
from safetensors.numpy import save_file

from tests.flax_resnet.peers import peer


def prefixed(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def backbone(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def saved(content, folder, **options):
    peer("torch").save(content, folder / "w.pth", **options)
    return folder / "w.pth"


def optimizer(net):
    torch = peer("torch")
    stepped = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    stepped.step()
    return stepped


def mlp(*widths):
    """Return a projection as self-supervised training has it in place of the last layer."""
    nn = peer("torch").nn
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def without_head(net):
    net.fc = peer("torch").nn.Identity()
    return net


# PyTorch --------------------------------------------------------------------------------------


def imagenet_example(net, other, folder):
    torch = peer("torch")
    content = {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": torch.nn.DataParallel(net).state_dict(),
        "best_acc1": torch.tensor(71.2),
        "optimizer": optimizer(net).state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer(net), 30).state_dict(),
    }
    return saved(content, folder)


def tutorial_with_generator(net, other, folder):
    torch = peer("torch")
    content = {"model_state_dict": net.state_dict(), "loss": torch.tensor(0.7), "epoch": 5}
    return saved(content | {"rng_state": torch.get_rng_state()}, folder)


def torchvision_reference(net, other, folder):
    torch = peer("torch")
    average = torch.optim.swa_utils.AveragedModel(other)
    content = {"model": net.state_dict(), "model_ema": average.state_dict()}
    return saved(content | {"args": argparse.Namespace(lr=0.1, model="resnet18")}, folder)


def torchvision_reference_ema(net, other, folder):
    return f"{torchvision_reference(net, other, folder)}#ema"


def one_network_under_two_keys(net, other, folder):
    state, average = net.state_dict(), other.state_dict()
    buffers = {"momentum_buffer": average}  # not a network
    return saved({"model": state, "best": {"model": dict(state)}, "optimizer": buffers}, folder)


def compiled(net, other, folder):
    torch = peer("torch")
    net.layer1 = torch.compile(net.layer1)
    return saved(torch.nn.DataParallel(torch.compile(net)).state_dict(), folder)


def sharded(net, other, folder):
    """FSDP and activation checkpoints wrap blocks; both need several processes or a GPU here."""
    state = {
        name.replace("layer1.0.", "layer1._fsdp_wrapped_module.0._checkpoint_wrapped_module."): t
        for name, t in net.state_dict().items()
    }
    return saved(prefixed("_fsdp_wrapped_module.", state), folder)


def sequential_children(net, other, folder):
    nn = peer("torch").nn
    return saved(nn.Sequential(*list(net.children())[:-1]).state_dict(), folder)


def sequential_with_head(net, other, folder):
    nn = peer("torch").nn
    children = list(net.children())
    whole = nn.Sequential(nn.Sequential(*children[:-1]), nn.Flatten(), children[-1])
    return saved(whole.state_dict(), folder)


def head_with_dropout(net, other, folder):
    nn = peer("torch").nn
    net.fc = nn.Sequential(nn.Dropout(0.5), net.fc)
    return saved(net.state_dict(), folder)


def head_of_two_layers(net, other, folder):
    net.fc = mlp(512, 32, 7)
    return saved(net.state_dict(), folder)


def classifier_beside_backbone(net, other, folder):
    nn = peer("torch").nn
    model = nn.ModuleDict({"classifier": net.fc, "backbone": without_head(net)})
    return saved(model.state_dict(), folder)


# Other libraries ------------------------------------------------------------------------------


def timm_checkpoint(net, other, folder):
    peer("timm")
    from timm.utils import CheckpointSaver, ModelEmaV3

    average = ModelEmaV3(net)
    average.module.load_state_dict(other.state_dict())
    args = argparse.Namespace(model="resnet18", opt="sgd")
    saver = CheckpointSaver(net, optimizer(net), args, average, checkpoint_dir=folder)
    saver.save_checkpoint(3, metric=71.2)
    return folder / "last.pth.tar"


def timm_ema(net, other, folder):
    return f"{timm_checkpoint(net, other, folder)}#ema"


def lightning_checkpoint(net, other, folder, **hyper_parameters):
    lightning = peer("lightning")

    class Lit(lightning.LightningModule):
        def __init__(self, **hyper_parameters):
            super().__init__()
            self.save_hyperparameters()
            self.model = net

        def configure_optimizers(self):
            return optimizer(self)

    loggers = dict(logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer = lightning.Trainer(accelerator="cpu", default_root_dir=folder, **loggers)
    trainer.strategy.connect(Lit(**hyper_parameters))
    trainer.save_checkpoint(folder / "w.ckpt")
    return folder / "w.ckpt"


def lightning_with_namespaces(net, other, folder):
    values = dict(args=argparse.Namespace(lr=0.1), more=types.SimpleNamespace(x=[1]))
    return lightning_checkpoint(net, other, folder, **values)


def lightning_with_omegaconf(net, other, folder):
    config = peer("omegaconf").OmegaConf.create({"a": {"b": [1, 2.5, "x"]}, "c": None})
    return lightning_checkpoint(net, other, folder, config=config)


def lightning_average(net, other, folder):
    """The names of Lightning's callback WeightAveraging: the weights are the average."""
    states = {"state_dict": net, "current_model_state": other}
    return saved({key: prefixed("model.", n.state_dict()) for key, n in states.items()}, folder)


def mmpretrain(net, other, folder):
    state = net.state_dict()
    head = {f"head.{name}": t for name, t in state.items() if name.startswith("fc.")}
    content = {"meta": {"epoch": 1}, "state_dict": prefixed("backbone.", backbone(state)) | head}
    return saved(content, folder)


# Self-supervised training ---------------------------------------------------------------------


def moco(net, other, folder, **options):
    torch = peer("torch")
    net.fc, other.fc = torch.nn.Linear(512, 7), torch.nn.Linear(512, 7)  # its projection
    model = torch.nn.ModuleDict({"encoder_q": net, "encoder_k": other})
    model.register_buffer("queue", torch.zeros(7, 16))
    state = torch.nn.DataParallel(model).state_dict()
    return saved({"epoch": 200, "arch": "resnet18", "state_dict": state}, folder, **options)


def moco_of_2020(net, other, folder):
    """The published files are of PyTorch before version 1.6."""
    return moco(net, other, folder, _use_new_zipfile_serialization=False)


def moco_keys(net, other, folder):
    return f"{moco(other, net, folder)}#encoder_k"


def moco_3(net, other, folder):
    torch = peer("torch")
    net.fc, other.fc = mlp(512, 32, 16), mlp(512, 32, 16)
    modules = {"base_encoder": net, "momentum_encoder": other, "predictor": mlp(16, 32, 16)}
    state = torch.nn.DataParallel(torch.nn.ModuleDict(modules)).state_dict()
    return saved({"epoch": 100, "state_dict": state}, folder)


def dino(net, other, folder):
    """The teacher is the network that DINO evaluates."""
    torch = peer("torch")

    def multi_crop(model):
        return torch.nn.ModuleDict({"backbone": without_head(model), "head": mlp(512, 32, 64)})

    content = {
        "student": torch.nn.DataParallel(multi_crop(other)).state_dict(),
        "teacher": multi_crop(net).state_dict(),
        "args": argparse.Namespace(arch="resnet18"),
        "dino_loss": {"center": torch.zeros(1, 64)},
    }
    return saved(content, folder)


def dino_student(net, other, folder):
    return f"{dino(other, net, folder)}#student"


def byol(net, other, folder):
    networks = ("online_network_state_dict", net), ("target_network_state_dict", other)
    nn = peer("torch").nn

    def encoder(model):
        body = nn.Sequential(*list(model.children())[:-1])
        return nn.ModuleDict({"encoder": body, "projetion": mlp(512, 32, 16)}).state_dict()

    return saved({key: encoder(model) for key, model in networks}, folder)


def byol_pytorch(net, other, folder):
    """The package's learner, which has the network itself as another attribute."""
    names = {"net.": net, "online_encoder.net.": net, "target_encoder.net.": other}
    state = {}
    for prefix, model in names.items():
        state |= prefixed(prefix, model.state_dict())
    state |= prefixed("online_predictor.net.", mlp(16, 32, 16).state_dict())
    return saved(state, folder)


def simsiam(net, other, folder):
    torch = peer("torch")
    net.fc = mlp(512, 512, 16)
    model = torch.nn.ModuleDict({"encoder": net, "predictor": mlp(16, 8, 16)})
    state = torch.nn.DataParallel(model).state_dict()
    return saved({"epoch": 100, "arch": "resnet18", "state_dict": state}, folder)


def swav(net, other, folder):
    state = backbone(net.state_dict()) | prefixed("projection_head.", mlp(512, 16).state_dict())
    return saved(prefixed("module.", state), folder)


# Other formats --------------------------------------------------------------------------------


def safetensors_file(net, other, folder):
    state = net.state_dict()
    head = {f"model.head.{name[3:]}": t for name, t in state.items() if name.startswith("fc.")}
    state = prefixed("model.backbone.", backbone(state)) | head
    save_file({name: t.numpy() for name, t in state.items()}, folder / "w.safetensors")
    return folder / "w.safetensors"


def flax_tree(net, convolutions="layer.layer_"):
    """Return the variables of transformers' FlaxResNet, which version 5 no longer has.

    Its bottlenecks' convolutions are named by numbers, those of its basic blocks by Flax.
    """
    leaves = {"weight": "kernel", "running_mean": "mean", "running_var": "var"}
    flat = {}
    for name, tensor in net.state_dict().items():
        *modules, leaf = name.replace(".layer.", f".{convolutions}").split(".")
        if leaf == "num_batches_tracked":
            continue
        array = tensor.numpy()
        collection = "batch_stats" if leaf.startswith("running") else "params"
        leaf = "scale" if leaf == "weight" and array.ndim == 1 else leaves.get(leaf, leaf)
        if array.ndim > 1:
            array = np.ascontiguousarray(np.moveaxis(array, (0, 1), (-1, -2)))
        flat[(collection, *modules, leaf)] = array
    return unflatten_dict(flat)


def flax_model(net, other, folder):
    (folder / "flax_model.msgpack").write_bytes(flax.serialization.to_bytes(flax_tree(net)))
    return folder  # a downloaded repository


def hugging_face(net, other, folder):
    net.save_pretrained(folder)
    return folder
