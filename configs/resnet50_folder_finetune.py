"""A pretrained ResNet-50 on your own images, one folder per class.

Source: this project; timm's A1 weights. The stem and the first stage stay fixed; the rest
of the backbone learns at a tenth of the head's rate. Image size, center crop, interpolation, mean
and standard deviation follow the weights. Crops are mild and labels not smoothed, which gained 1.8
points with small pretrained networks (benchmarks/studies/folder_recipe.md).
Reports: nothing; it depends on the images. Ours: not measured.
Assumes: one GPU of 8 GB, pip install 'flax-resnet[pretrained]', and access to the hub; or
--config.init_from=FILE, a ResNet-50's weights.

    python -m train.main --config configs/resnet50_folder_finetune.py \\
        --config.dataset.data_dir=DIR

DIR as in resnet18_folder. --config.freeze=backbone trains only the head.
"""

from train.config.loading import default_config


def get_config():
    config = default_config()
    config.model.name = "resnet50"
    config.init_from = "resnet50.a1_in1k"
    config.freeze = "stem*,stage1*"
    config.dataset.name = "folder"
    config.dataset.eval_split = "val"
    config.augment.rrc_scale = (0.5, 1.0)
    config.augment.hflip = True

    config.batch_size = 32
    config.num_epochs = 20
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 1e-4
    config.optimizer.backbone_lr_scale = 0.1
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 0.05
    config.schedule.warmup_epochs = 1
    return config
