"""A feature pyramid on a ResNet-18 segments drawn shapes: all of segmentation in five minutes.

Source: this project; the network of Kirillov et al. 2019 (arXiv:1901.02446) with half of the
ResNet's width, 32 channels in pyramid and head, and no max-pool, so that the finest level has half
of the pictures' resolution: most wrong pixels lie at the edges of the shapes.
Reports: nothing. Ours: mIoU 90.22 to 91.00 % on the 128 test pictures, measured with seeds 0 and 1.
Assumes: a laptop's CPU; nothing is downloaded.

    python -m train.main --config configs/fpn_resnet18_shapes.py
"""

from train.config.loading import default_config


def get_config():
    config = default_config()
    config.task = "segmentation"
    config.model.name = "semantic_fpn_resnet18"
    config.model.stem = "no_pool"
    config.model.width = 32
    config.model.head_channels = 32
    config.model.pyramid_channels = 32
    config.dataset.name = "drawn_shapes"
    config.dataset.image_size = 64
    config.augment.scale_range = (0.9, 1.1)
    config.augment.hflip = True
    config.augment.vflip = True

    config.batch_size = 16
    config.num_epochs = 45
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.02
    config.schedule.learning_rate = 4e-3
    config.schedule.warmup_epochs = 2
    config.ema.decay = 0.99

    config.eval.every_epochs = 9
    config.checkpoint.every_epochs = 9
    return config
