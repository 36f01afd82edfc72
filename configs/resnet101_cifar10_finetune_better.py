"""A pretrained ResNet-101 on CIFAR-10, meant to do better than the tutorial's recipe.

Source: this project. Differs from resnet101_cifar10_finetune: images are normalized as in
pretraining; SGD with a decreasing rate, a tenth of it for everything but the new head, to
preserve the pretrained features; random crops and label smoothing; a larger batch; bfloat16.
Reports: nothing. Ours: not measured.
Assumes: one GPU of 24 GB, and the rest as in that recipe.

    python -m train.main --config configs/resnet101_cifar10_finetune_better.py \\
        --config.dataset.data_dir=DIR
"""

from train.config.loading import default_config


def get_config():
    config = default_config()
    config.model.name = "resnet101"
    config.model.dtype = "bfloat16"
    config.init_from = "resnet101.tv_in1k"
    config.dataset.name = "tfds:cifar10"
    config.dataset.image_size = 224
    config.dataset.crop_pct = 1.0  # the whole image
    config.augment.rrc_scale = (0.5, 1.0)
    config.augment.hflip = True
    config.label_smoothing = 0.1

    config.batch_size = 128
    config.num_epochs = 5
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 1e-4
    config.optimizer.backbone_lr_scale = 0.1
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 0.1
    config.schedule.warmup_epochs = 0.5
    return config
