"""Time per epoch on data of CIFAR-10's size: the trainer's step and a PyTorch loop, interleaved.

    python benchmarks/studies/cifar_epoch.py --dtype bfloat16 --batch 512 \
        --peer torch torch-resident
    python benchmarks/studies/cifar_epoch.py --model resnet20 --examples 1024 --cores 1 --rounds 1

Random images, each shifted by up to four pixels and flipped at random; each side in a process of
its own. ``ours`` is the trainer's step with all images in device memory, and on GPU and TPU 32
steps per dispatch, as with loader.cache_on_device and steps_per_execution. ``torch`` is the usual
loop: a DataLoader whose workers augment, pinned memory, channels_last, autocast for bfloat16;
``torch-resident`` keeps the images on the device and augments whole batches there. The loss is read
once per epoch, at its end. The first epoch compiles and is not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import sides

PEERS = ("torch", "torch-resident")
PAD, SIZE, CLASSES = 4, 32, 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--examples", type=sides.positive, default=50_000)
    parser.add_argument("--batch", type=sides.positive, default=128)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--epochs", type=sides.positive, default=1, help="timed epochs")
    parser.add_argument("--workers", type=int, default=4, help="workers of PyTorch's DataLoader")
    parser.add_argument(
        "--steps-per-execution", type=int, default=0, help="steps per dispatch; 0: the default"
    )
    parser.add_argument("--cores", type=int, default=0, help="0 for all")
    parser.add_argument("--rounds", type=sides.positive, default=5)
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=["torch"])
    parser.add_argument("--side", choices=("ours", *PEERS), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    flags.examples -= flags.examples % flags.batch  # the same on both sides
    if not flags.examples:
        parser.error("--examples must be at least --batch")
    if flags.side:
        epoch = ours(flags) if flags.side == "ours" else torch_side(flags)
        epoch()
        seconds = []
        for _ in range(flags.epochs):
            began = time.perf_counter()
            epoch()
            seconds.append(time.perf_counter() - began)
        print(json.dumps({"seconds": statistics.median(seconds)}))
        return
    passed = ["--model", flags.model, "--examples", flags.examples, "--batch", flags.batch]
    passed += ["--dtype", flags.dtype, "--epochs", flags.epochs, "--workers", flags.workers]
    passed += ["--steps-per-execution", flags.steps_per_execution]
    names = ("ours", *flags.peer)
    results = sides.interleave(__file__, names, list(map(str, passed)), flags.rounds, flags.cores)
    print(f"\n{flags.model}, {flags.examples} images of {SIZE} px, batch {flags.batch}, ", end="")
    print(f"{flags.dtype}; {sides.conditions(flags.cores)}")
    for name, runs in results.items():
        print(f"{name:15} {sides.spread([run['seconds'] for run in runs], '.2f')} s per epoch")
    for peer in flags.peer:
        ratio = sides.ratios(results, peer, "ours", "seconds")
        print(f"speed relative to {peer}: {sides.spread(ratio, '.2f')}")


def ours(flags):
    from train.runtime import host

    host.keep_freed_memory()  # as train.main does
    import jax
    import jax.numpy as jnp
    import numpy as np

    from benchmarks import trainer
    from flax_resnet import create_model
    from train.data.augment.pipeline import Augment
    from train.data.sampler import EpochSampler, ProcessShard
    from train.engine import multi_step
    from train.engine.devices import Pmap
    from train.engine.step import create_state, train_step

    dtype = jnp.dtype(flags.dtype)
    model = create_model(flags.model, num_classes=CLASSES, dtype=dtype, stem="cifar")
    step_config = trainer.make_step_config(
        model, augment=Augment(pad_crop=PAD, hflip=True), mean=MEAN, std=STD
    )
    devices = Pmap(jax.local_devices()[:1])
    steps_per_call = multi_step.steps_per_execution(
        flags.steps_per_execution, devices.platform, cached_on_device=True
    )
    images = trainer.random_batch(flags.examples, SIZE)
    data = devices.replicate(images)
    state = [devices.replicate(create_state(step_config, images["image"].shape[1:]))]
    sampler = EpochSampler(flags.examples, flags.batch, 0)

    def step(state, data, batch):  # as the trainer's loader gathers, without OpenCV
        chosen = {name: array[batch["record"]] for name, array in data.items()}
        return train_step(step_config, state, chosen)

    train = devices.train(multi_step.run_steps(step) if steps_per_call > 1 else step)
    count = flags.examples // flags.batch
    epochs = iter(range(0, 10**6, count))

    def epoch():
        first = next(epochs)
        last = first + count
        if steps_per_call > 1:
            calls = [
                range(at, min(at + steps_per_call, last))
                for at in range(first, last, steps_per_call)
            ]
            batches = multi_step.stack_batches(sampler, calls, ProcessShard(), steps_per_call, 1)
        else:
            batches = (
                {"record": sampler[number].astype(np.int32)} for number in range(first, last)
            )
        for batch in batches:
            state[0], metrics = train(state[0], data, devices.split(batch))
        return jax.device_get(metrics["loss"])

    return epoch


def torch_side(flags):
    import torch

    from benchmarks import torch_nets

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True
    net = torch_nets.make(flags.model, "cifar", CLASSES).to(
        device, memory_format=torch.channels_last
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=cuda)
    generator = torch.Generator().manual_seed(0)
    shape = (flags.examples, 3, SIZE, SIZE)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.arange(flags.examples) % CLASSES
    mean, std = (255 * torch.tensor(three, device=device)[:, None, None] for three in (MEAN, STD))
    resident = flags.side == "torch-resident"
    feed = (
        device_batches(device, images, labels, flags) if resident else loader(images, labels, flags)
    )

    def epoch():
        for x, y in feed():
            x = x.to(device, non_blocking=True, memory_format=torch.channels_last)
            x, y = (x.float() - mean) / std, y.to(device, non_blocking=True)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=flags.dtype == "bfloat16"):
                loss = torch.nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
        return loss.item()  # waits for the device

    return epoch


def loader(images, labels, flags):
    """Return batches of a DataLoader whose workers augment each image."""
    import torch

    padded = torch.nn.functional.pad(images, (PAD,) * 4)

    class Augmented(torch.utils.data.Dataset):
        def __len__(self):
            return len(labels)

        def __getitem__(self, index):
            top, left = torch.randint(0, 2 * PAD + 1, (2,)).tolist()
            image = padded[index, :, top : top + SIZE, left : left + SIZE]
            return image.flip(-1) if torch.rand(()) < 0.5 else image, labels[index]

    feed = torch.utils.data.DataLoader(
        Augmented(),
        flags.batch,
        shuffle=True,
        num_workers=flags.workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=flags.workers > 0,
    )
    return lambda: feed


def device_batches(device, images, labels, flags):
    """Return batches of images on the device, shifted and flipped there, each independently."""
    import torch

    padded = torch.nn.functional.pad(images, (PAD,) * 4).to(device)
    labels = labels.to(device)
    places = torch.arange(SIZE, device=device)

    def feed():
        for index in torch.randperm(len(labels), device=device).split(flags.batch):
            rows, columns = (
                torch.randint(0, 2 * PAD + 1, (len(index), 1), device=device) + places
                for _ in range(2)
            )
            flipped = torch.rand(len(index), 1, device=device) < 0.5
            columns = torch.where(flipped, columns.flip(1), columns)
            chosen = padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
            yield chosen.permute(0, 3, 1, 2), labels[index]

    return feed


if __name__ == "__main__":
    main()
