"""A pretrained ResNet-101 on CIFAR-10 at 224 pixels: a tutorial's recipe.

Source: a PyTorch tutorial on ResNet-101; torchvision's V1 weights, a new head of 10 classes,
Adam at 0.001, batch 32. resnet101_cifar10_finetune_better improves it.
Reports: a mean loss of 1.1499 in the first of 5 epochs. Ours: not measured.
Assumes: one GPU of 12 GB, pip install 'flax-resnet[pretrained]', and access to the hub; or
--config.init_from=FILE, a ResNet-101's weights.

    python -m train.main --config configs/resnet101_cifar10_finetune.py \\
        --config.dataset.data_dir=DIR
"""

from train.config.loading import default_config


def get_config():
    config = default_config()
    config.model.name = "resnet101"
    config.init_from = "resnet101.tv_in1k"
    config.dataset.name = "tfds:cifar10"
    config.dataset.image_size = 224
    config.dataset.crop_pct = 1.0  # the whole image
    config.dataset.interpolation = "bilinear"
    config.dataset.mean = (0.4914, 0.4822, 0.4465)
    config.dataset.std = (0.247, 0.243, 0.261)
    config.augment.hflip = True

    config.batch_size = 32
    config.num_epochs = 5
    config.optimizer.name = "adam"
    config.optimizer.weight_decay = 0.0
    config.schedule.name = "constant"
    config.schedule.learning_rate = 1e-3
    return config
