"""ResNet-18 on CIFAR-10, optimized for the time to 96 %, with all data on the device.

Source: this project. The network is ImageNet's ResNet-18 with a 3×3 stem; a one-cycle schedule
(Smith and Topin 2017, arXiv:1708.07120) and cutout (DeVries and Taylor 2017, arXiv:1708.04552).
Reports: nothing. Others take 7 minutes to 96 % with a ResNet-18 on one A100 (airbench's author,
who needs 27.3 s with another network). Ours: not measured.
Assumes: one GPU of 16 GB or a TPU core.

    python -m train.main --config configs/resnet18_cifar10_fast.py \\
        --config.dataset.data_dir=DIR

For the time to 94 %: --config.num_epochs=15 --config.augment.cutout=0
"""

from configs.bases import cifar


def get_config():
    config = cifar("resnet18")
    config.model.stem = "cifar"
    config.model.dtype = "bfloat16"
    config.loader.cache_on_device = "always"
    config.augment.cutout = 12
    config.label_smoothing = 0.1

    config.batch_size = 512
    config.num_steps = 0
    config.num_epochs = 60
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay_norm_and_bias = False
    config.schedule.name = "one_cycle"
    config.schedule.learning_rate = 0.1
    config.schedule.base_batch_size = 128
    config.schedule.pct_start = 0.2

    config.eval.every_epochs = 5
    config.checkpoint.every_epochs = 0  # only at the end
    return config
