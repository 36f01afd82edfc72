"""A plain PyTorch loop on the pictures of folder_recipe.py: whether the recipe is worth using.

    python benchmarks/studies/folder_torch.py --out FILE [--sets cracks …] [--epochs 12]
        [--variants "PyTorch, rate 0.01" …] [--seeds 3] [--size 96]

torchvision's ResNet-18 with flips, SGD and one cycle, at 32 images a batch, and nothing else. FILE,
its table and the seeds are those of folder_recipe.py, so that both may share a file.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import folder_recipe
import numpy as np
import torch
from folder_recipe import CONDITIONS

from benchmarks.torch_nets import make

MEAN = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
STD = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
BATCH = 32


def tensors(source, size):
    """Return normalized images ``(count, 3, size, size)`` and labels of a source."""
    pairs = [source.decode(number) for number in range(len(source))]
    images = [cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image, _ in pairs]
    images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return (images - MEAN) / STD, torch.tensor([int(label) for _, label in pairs])


def train(training, evaluation, num_classes, rate, epochs, seed):
    """Train a ResNet-18 and return predicted classes and labels of the evaluation images."""
    torch.manual_seed(seed)
    images, labels = training
    net = make("resnet18", num_classes=num_classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps * epochs, cycle_momentum=False
    )
    for _ in range(epochs):
        for chosen in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            flipped = torch.rand(BATCH, 1, 1, 1) < 0.5
            batch = torch.where(flipped, images[chosen].flip(3), images[chosen])
            loss = torch.nn.functional.cross_entropy(net(batch), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.inference_mode():
        logits = torch.cat([net(part) for part in evaluation[0].split(100)])
    return logits, evaluation[1]


def scores(logits, labels):
    """Return top-1, balanced accuracy and loss."""
    right = logits.argmax(1) == labels
    recalls = [right[labels == label].float().mean().item() for label in labels.unique()]
    return {
        "top1": right.float().mean().item(),
        "balanced_accuracy": sum(recalls) / len(recalls),
        "loss": torch.nn.functional.cross_entropy(logits, labels).item(),
    }


def main():
    """Train every rate on every set with every seed."""
    rates = ("0.01", "0.02", "0.05")
    variants = [f"PyTorch, rate {rate}" for rate in rates]
    parser = folder_recipe.make_parser(__doc__, variants, epochs=12)
    parser.add_argument("--size", type=int, default=96, help="of the images")
    flags = parser.parse_args()
    done = {tuple(row[key] for key in CONDITIONS) for row in folder_recipe.finished(flags.out)}
    for seed in range(flags.seeds):
        for variant in flags.variants:
            for name in flags.sets:
                conditions = (64, flags.size, 2, flags.epochs, variant, name, seed)
                if conditions in done:
                    continue
                sources = folder_recipe.pictures(name, flags.size, seed)
                parts = [tensors(source, flags.size) for source in sources]
                rate = float(variant.split()[-1])
                classes = len(sources[0].class_names)
                result = scores(*train(*parts, classes, rate, flags.epochs, seed))
                folder_recipe.record(flags.out, conditions, result)


if __name__ == "__main__":
    main()
