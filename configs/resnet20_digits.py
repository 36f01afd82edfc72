"""ResNet-20 on scikit-learn's handwritten digits: the whole trainer in under two minutes.

The net of He et al. 2015 (arXiv:1512.03385, section 4.2) on 1,437 images of 8×8 pixels
that come with scikit-learn; nothing is downloaded. For a laptop CPU.

    python -m train.main --config configs/resnet20_digits.py
"""

from train.config import default_config


def get_config():
    config = default_config()
    config.model.name = "resnet20"
    config.dataset.name = "digits"
    config.dataset.image_size = 8
    config.dataset.mean = (0.305, 0.305, 0.305)  # of the training images
    config.dataset.std = (0.375, 0.375, 0.375)
    config.augment.pad_crop = 1

    config.batch_size = 64
    config.num_epochs = 60
    config.label_smoothing = 0.1
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 1e-3
    config.schedule.learning_rate = 0.1
    config.schedule.warmup_epochs = 5

    config.eval.every_epochs = 5
    config.checkpoint.every_epochs = 5
    return config
