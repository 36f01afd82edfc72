"""ResNet-18 on your own pictures, one folder a class.

Source: this project.
Reports: nothing; it depends on the pictures. Ours: measured on 200 drawn ones of four classes, 55 %
of 400 others.
Assumes: one GPU or, for some hundred pictures, a CPU.

    python -m train.main --config configs/resnet18_folder.py \\
        --config.dataset.data_dir=DIR

DIR has ``train/CLASS/…`` and ``val/CLASS/…`` (or ``test/``), or just ``CLASS/…``, of which a
fifth is held out for evaluation. Classes, splits and steps follow from the pictures: nothing
else needs to be set. Trains from scratch; resnet50_folder_finetune begins with what another net
has learned, which needs fewer pictures.
"""

from train.config.loading import default_config


def get_config():
    config = default_config()
    config.model.name = "resnet18"
    config.model.zero_init_last = True
    config.dataset.name = "folder"
    config.dataset.eval_split = "val"
    config.dataset.image_size = 224
    config.dataset.crop_pct = 0.875
    config.augment.rrc_scale = (0.25, 1.0)
    config.augment.hflip = True

    config.batch_size = 32
    config.num_epochs = 120  # of some hundred pictures, these are few steps
    config.label_smoothing = 0.1
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 0.05
    config.schedule.warmup_epochs = 3
    return config
