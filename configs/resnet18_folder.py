"""ResNet-18 on your own images, one folder per class.

Source: this project.
Reports: nothing; it depends on the images. Ours: crops, smoothing and initialization are measured
with a small network on four sets of 100 to 600 images, whose mean top-1 rose from 66.1 to 74.8 %
after 12 epochs with whole images and from 74.6 to 78.1 % after 48 with crops down to 70 %; rate and
crops also with ResNet-18 at 96 pixels on three of them for 12 epochs, where whole images reached
68.4 % and a plain PyTorch loop 68.4 %, two seeds (benchmarks/studies/folder_recipe.md).
Assumes: one GPU or, for a few hundred images, a CPU.

    python -m train.main --config configs/resnet18_folder.py \\
        --config.dataset.data_dir=DIR

DIR has ``train/CLASS/…`` and ``val/CLASS/…`` (or ``test/``), or only ``CLASS/…``, of which a
fifth is held out for evaluation. Classes, splits and steps follow from the images: nothing else
needs to be set. Trains from scratch; resnet50_folder_finetune starts from pretrained weights,
which needs fewer images.
"""

from train.config.loading import default_config


def get_config():
    config = default_config()
    config.model.name = "resnet18"
    config.dataset.name = "folder"
    config.dataset.eval_split = "val"
    config.dataset.image_size = 224
    config.augment.hflip = True
    config.augment.rrc_scale = (0.5, 1.0)
    config.augment.rrc_full_epochs = 96  # shorter runs crop less

    config.batch_size = 32
    config.num_epochs = 120  # of a few hundred images: few steps
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 0.01
    config.schedule.warmup_epochs = 3
    return config
