"""torchvision's published weights: their names, files and preprocessing."""

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple


class PublishedWeights(NamedTuple):
    """Weights that torchvision publishes.

    Attributes:
      model: name of the network.
      version: 1 or 2, of ``IMAGENET1K_V1`` and ``IMAGENET1K_V2``.
      digest: the first 8 digits of the file's SHA-256, with which its name ends.
      resize: length of the shorter side before the center crop of 224 pixels; None: no crop.
    """

    model: str
    version: int
    digest: str
    resize: int | None

    @property
    def file_name(self) -> str:
        """The name of the file."""
        return f"{self.model}-{self.digest}.pth"

    @property
    def timm_id(self) -> str:
        """The id of timm's copy on the Hugging Face hub."""
        return f"{self.model}.tv{'2' * (self.version == 2)}_in1k"

    @property
    def local_file(self) -> Path:
        """Where torchvision keeps the file."""
        return folder() / self.file_name


PUBLISHED = tuple(
    PublishedWeights(*row)
    for row in (
        ("resnet18", 1, "f37072fd", 256),
        ("resnet34", 1, "b627a593", 256),
        ("resnet50", 1, "0676ba61", 256),
        ("resnet50", 2, "11ad3fa6", 232),
        ("resnet101", 1, "63fe2227", 256),
        ("resnet101", 2, "cd907fc2", 232),
        ("resnet152", 1, "394f9c45", 256),
        ("resnet152", 2, "f82ba261", 232),
        ("resnext50_32x4d", 1, "7cdf4587", 256),
        ("resnext50_32x4d", 2, "1a0047aa", 232),
        ("resnext101_32x8d", 1, "8ba56ff5", 256),
        ("resnext101_32x8d", 2, "110c445d", 232),
        ("resnext101_64x4d", 1, "173b62eb", 232),
        ("wide_resnet50_2", 1, "95faca4d", 256),
        ("wide_resnet50_2", 2, "9ba9bcbe", 232),
        ("wide_resnet101_2", 1, "32ee1156", 256),
        ("wide_resnet101_2", 2, "d733dc28", 232),
    )
)

# Of COCO, with the classes of Pascal VOC; their files have "_coco" in the name.
SEGMENTATION = tuple(
    PublishedWeights(model, 1, digest, None)
    for model, digest in (
        ("fcn_resnet50", "1167a1af"),
        ("fcn_resnet101", "7ecb50ca"),
        ("deeplabv3_resnet50", "cd0a2569"),
        ("deeplabv3_resnet101", "586e9e4e"),
    )
)


def folder() -> Path:
    """Return the folder in which torchvision keeps its files, as ``torch.hub`` chooses it."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"


def find_by_id(identity: str) -> PublishedWeights | None:
    """Return the weights with an id of torchvision such as ``ResNet50_Weights.IMAGENET1K_V2``.

    ``DEFAULT`` stands for the latest version, as in torchvision.
    """
    match = re.fullmatch(r"(\w+)_weights\.(?:imagenet1k_v([12])|default)", identity.lower())
    if match is None:
        return None
    versions = [weights for weights in PUBLISHED if weights.model == match[1]]
    chosen = [weights for weights in versions if match[2] in (None, str(weights.version))]
    return chosen[-1] if chosen else None


def find_by_file(path: Path) -> PublishedWeights | None:
    """Return the weights that a file holds, by its name or by its SHA-256."""
    digest = re.search(r"-([0-9a-f]{8})(?![0-9a-f])", path.name)
    by_digest = {weights.digest: weights for weights in (*PUBLISHED, *SEGMENTATION)}
    if digest is not None and digest[1] in by_digest:
        return by_digest[digest[1]]
    if path.suffix not in (".pth", ".pt") or not path.is_file():
        return None
    with path.open("rb") as file:
        return by_digest.get(hashlib.file_digest(file, "sha256").hexdigest()[:8])
