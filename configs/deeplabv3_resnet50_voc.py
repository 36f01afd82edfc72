"""DeepLabv3 with a ResNet-50 on Pascal VOC 2012 with the additional masks of SBD.

Source: Chen et al. 2017 (arXiv:1706.05587), in the settings of MMSegmentation's
deeplabv3_r50-d8_4xb4-20k_voc12aug-512x512: output stride 8, auxiliary head with a weight of 0.4,
20,000 steps of 16 crops of 512 pixels, scales of 0.5 to 2, flips, momentum 0.9, weight decay 5e-4,
and a learning rate of 0.01 that falls to 1e-4 with the power 0.9 of the steps left ("poly").
Differences: MMSegmentation's ResNet-50 has a stem of three convolutions; it enlarges pictures to a
shorter side of 512 pixels, in training before the random scale, here they keep their size; it
changes brightness, contrast, saturation and hue with a probability of 0.5 each, here always.
Reports: mIoU 76.17 % on the 1,449 images of val, single scale (MMSegmentation's model zoo).
Ours: not measured.
Assumes: four GPUs of 11 GB, pip install 'flax-resnet[pretrained]', and access to the hub; or
--config.init_from=FILE, a ResNet-50's weights. DIR as below.

    python -m train.main --config configs/deeplabv3_resnet50_voc.py \\
        --config.dataset.data_dir=DIR

DIR holds VOC's JPEGImages as images/ and SBD's SegmentationClassAug as masks/, the lists of names
as train.txt (10,582 names) and val.txt, and classes.txt with a name a line, background first; see
docs/data.md.
"""

from configs.bases import voc


def get_config():
    return voc("deeplabv3_resnet50")
