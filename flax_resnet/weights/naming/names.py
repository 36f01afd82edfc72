"""Find a network in a file's tensor names, and give its tensors their library's own names.

Training scripts wrap networks: in ``DataParallel`` (``module.``), ``torch.compile``
(``_orig_mod.``), FSDP, a Lightning module (``model.``) or a ``Sequential``, which numbers its
children. The head gets another name (``fc.1``, ``classifier``) when it is replaced.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from flax_resnet.text import truncate
from flax_resnet.weights.naming.layouts import HUGGINGFACE, LAYOUTS, TIMM
from flax_resnet.weights.naming.parts import Part, choose_part
from flax_resnet.weights.tensors import Tensor, WeightFile, WeightsError

_WRAPPER = re.compile(
    r"(?<![^./])(?:module|_orig_mod|_fsdp_wrapped_module|_fpw_module|_checkpoint_wrapped_module"
    r"|_forward_module)[./]"
)
# The backbone of transformers' network, and of this library's with a head for pixels.
_FLAX_BASE = re.compile(r"^(params|batch_stats)/(?:resnet|backbone)/")
_FLAX_LIST = re.compile(r"/layer/layer_(\d)/")  # Flax's name in a list of modules without names

# A block in a Sequential of torchvision's or timm's layers, and in one of the blocks' stages.
_CHILD = re.compile(r"(?<![^.])(\d{1,2})\.\d{1,3}\.(?:conv1|bn1)\.")
_NUMBERED = re.compile(r"(\d{1,2})\.(.+)")
_SEQUENTIAL_STEM = ("conv1", "bn1", "maxpool")  # the first layers that have tensors

_HEADS = {"fc", "head", "heads", "classifier", "linear", "last_linear", "logits", "output"}
_COUNTER = "num_batches_tracked"


def unwrapped(name: str) -> str:
    """Return a tensor's name without the wrappers that PyTorch adds at any depth."""
    name = _WRAPPER.sub("", name)
    if name.startswith(("params/", "batch_stats/")):
        name = _FLAX_LIST.sub(r"/layer/\1/", _FLAX_BASE.sub(r"\1/", name))
    return name


def find_prefixes(names: Iterable[str]) -> set[str]:
    """Return the prefixes of the networks whose blocks occur in unwrapped names."""
    names = list(names)
    matches = ((name, next(_blocks_in(name), None)) for name in names)
    prefixes = {name[: match.start()] for name, match in matches if match}
    if not prefixes:
        children = ((name, _CHILD.search(name)) for name in names)
        prefixes = {name[: match.start()] for name, match in children if match}
    return prefixes


def _blocks_in(name: str) -> Iterable[re.Match[str]]:
    return (match for layout in LAYOUTS if (match := layout.blocks.search(name)))


def find_parts(groups: Mapping[str, Iterable[str]]) -> list[Part]:
    """Return the networks in dictionaries of tensors, given by the keys around them."""
    return [
        Part(group, prefix)
        for group, names in groups.items()
        for prefix in find_prefixes(map(unwrapped, names))
    ]


def find_network(file: WeightFile, source: str) -> WeightFile:
    """Return the tensors of one network of the file, with its library's names.

    Returns:
      The file with the network's tensors only, with its other tensors in ``left`` and with notes.
      A file without any network's names is returned as it is.

    Raises:
      WeightsError: the file has several networks, and neither ``FILE#PART`` nor a convention
        chooses one.
    """
    originals = _unwrapped(file.tensors, source)
    prefixes = find_prefixes(originals)
    if not prefixes:
        return file
    part, notes = choose_part([Part(file.group, prefix) for prefix in prefixes], file.part, source)
    network: dict[str, Tensor] = {}
    beside: dict[str, str] = {}  # names of tensors in none of the networks, by the original ones
    by_length = sorted(prefixes, key=len, reverse=True)
    for name, original in originals.items():
        owner = next((prefix for prefix in by_length if name.startswith(prefix)), None)
        if owner == part.prefix:
            network[name.removeprefix(part.prefix)] = file.tensors[original]
        elif owner is None:
            beside[original] = _beside(name, part.prefix)
    network = _named_children(network)
    if part.is_projected:
        projection = [name for name in network if name.partition(".")[0] in _HEADS]
        left = [*beside, *(part.prefix + name for name in projection)]
        network = {name: tensor for name, tensor in network.items() if name not in projection}
        if projection:
            notes += ("its last layer is a projection of self-supervised training: not loaded",)
    else:
        own = _head_name(network)
        heads = {name: file.tensors[original] for original, name in beside.items()} | network
        root, renamed = _find_head(network, heads, own)
        left = [original for original, name in beside.items() if name not in renamed]
        network = {name: tensor for name, tensor in network.items() if name not in renamed}
        network |= {target: heads[name] for name, target in renamed.items()}
        if root not in ("", own):
            notes += (f"the file's head is {truncate(root)!r}",)
    return dataclasses.replace(
        file,
        tensors=network,
        left=tuple(left),
        beside={beside[name]: (name, file.tensors[name]) for name in left if name in beside},
        notes=(*file.notes, *notes),
    )


def _unwrapped(tensors: Iterable[str], source: str) -> dict[str, str]:
    """Return the original names by those without wrappers."""
    originals: dict[str, str] = {}
    for original in tensors:
        name = unwrapped(original)
        if name in originals:
            raise WeightsError(
                f"{source} has both {truncate(originals[name])} and {truncate(original)}, which are"
                " one tensor without the names of wrappers; save the state dict of one network"
            )
        originals[name] = original
    return originals


def _beside(name: str, prefix: str) -> str:
    """Return the name of a tensor beside the network, without the modules that both are in.

    The head may have fewer of them than the blocks: ``model.fc`` and ``model.backbone.layer1``.
    """
    modules, shared = name.split("."), prefix.split(".")
    while len(modules) > 1 and modules[0] == shared[0] and shared[0]:
        modules, shared = modules[1:], shared[1:]
    return ".".join(modules)


def _named_children(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the numbered children of a Sequential as torchvision's and timm's modules."""
    if any(next(_blocks_in(name), None) for name in tensors):
        return dict(tensors)
    stages = sorted({int(match[1]) for name in tensors if (match := _CHILD.match(name))})
    numbers = {int(match[1]) for name in tensors if (match := _NUMBERED.fullmatch(name))}
    stem = sorted(number for number in numbers if number < stages[0])
    modules = dict(zip(stem, _SEQUENTIAL_STEM, strict=False))
    modules |= {number: f"layer{index}" for index, number in enumerate(stages, 1)}
    after = [number for number in numbers if number > stages[-1]]
    weight = tensors.get(f"{after[0]}.weight") if len(after) == 1 else None
    if weight is not None and len(weight.shape) == 2:
        modules[after[0]] = "fc"
    named = {}
    for name, tensor in tensors.items():
        match = _NUMBERED.fullmatch(name)
        module = modules.get(int(match[1])) if match else None
        named[f"{module}.{match[2]}" if match and module else name] = tensor
    return named


def _find_head(
    network: Mapping[str, Tensor], tensors: Mapping[str, Tensor], own: str
) -> tuple[str, dict[str, str]]:
    """Find the head that replaced the network's own one, in the network or beside it.

    It is the only linear layer with the name of a head, if that has no other layers: a head such
    as ``fc.0``, ``fc.3`` has no place in our networks.

    Returns:
      The head's name, and the names that its tensors should have. Both are empty if the network's
      own head ``own`` is in the file, or if there is none.
    """
    if not own or f"{own}.weight" in network:
        return "", {}
    modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        if not name.endswith(_COUNTER):
            modules[name.partition(".")[0]][name] = tensor
    heads = {
        root: layers
        for module, layers in modules.items()
        if (module in _HEADS or module.isdecimal()) and (root := _linear(layers))
    }
    if len(heads) != 1:
        return "", {}
    [(root, layers)] = heads.items()
    return root, {name: own + name.removeprefix(root) for name in layers}


def _head_name(names: Iterable[str]) -> str:
    """Return the module of the head that the library of these names gives it."""
    names = list(names)
    if any(map(HUGGINGFACE.blocks.match, names)):
        return "classifier.1"
    if any(name.startswith("stages.") for name in names):
        return "head.fc"
    return "fc" if any(map(TIMM.blocks.match, names)) else ""


def _linear(tensors: Mapping[str, Tensor]) -> str:
    """Return the name of the linear layer whose tensors these are, or an empty text."""
    weights = [name for name in tensors if name.endswith(".weight")]
    if len(weights) != 1:
        return ""
    root, shape = weights[0].removesuffix(".weight"), tensors[weights[0]].shape
    bias = tensors.get(f"{root}.bias")
    if len(tensors) != 1 + (bias is not None) or len(shape) < 2 or math.prod(shape[2:]) != 1:
        return ""
    return root if bias is None or bias.shape == shape[:1] else ""
