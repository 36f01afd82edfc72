"""A pretrained DeepLabv3 with a ResNet-50 on your own images with masks.

Source: this project, after Chen et al. 2017 (arXiv:1706.05587); timm's A1 weights of the backbone.
Output stride 16, which needs a quarter of the memory of 8, and batch norm of the backbone keeps its
running statistics, since batches of eight crops are too small for new ones.
Reports: nothing; it depends on the images. Ours: not measured.
Assumes: one GPU of 8 GB, pip install 'flax-resnet[pretrained]', and access to the hub; or
--config.init_from=FILE, a ResNet-50's weights.

    python -m train.main --config configs/deeplabv3_resnet50_folder.py \\
        --config.dataset.data_dir=DIR

DIR holds images/ and masks/, or train/ and val/ with these two each; a mask is a PNG with the
number of the class of every pixel, 255 for pixels that do not count. classes.txt has a name a line.
See docs/data.md.
"""

from train.config.loading import default_config


def get_config():
    config = default_config()
    config.task = "segmentation"
    config.model.name = "deeplabv3_resnet50"
    config.model.output_stride = 16
    config.model.aux_head = True
    config.model.freeze_batch_norm = True
    config.init_from = "resnet50.a1_in1k"
    config.dataset.name = "segmentation_folder"
    config.dataset.eval_split = "val"
    config.dataset.image_size = 512
    config.augment.hflip = True
    config.augment.color_jitter = (0.2, 0.2, 0.2, 0.0)

    config.batch_size = 8
    config.num_epochs = 60
    config.optimizer.weight_decay = 1e-4
    config.optimizer.backbone_lr_scale = 0.1
    config.schedule.name = "polynomial"
    config.schedule.power = 0.9
    config.schedule.learning_rate = 0.02
    return config
