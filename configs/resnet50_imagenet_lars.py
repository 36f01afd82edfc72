"""ResNet-50 on ImageNet with batches of 8,192 to 32,768 images: LARS.

Source: You et al. 2017 (arXiv:1708.03888); the values are those for such batches in the code of
Google's JAX entry to MLPerf 0.7 (2020), whose submitted run used 65,536. Differs: with fewer than
64 images per core, that code computes batch norm over several cores; here each device uses its own.
Reports: MLPerf's entries end at 75.9 % top-1. Ours: not measured.
Assumes: 32 devices of 16 GB; on 8 GPUs of 40 GB --config.grad_accum_steps=4.

    python -m train.main --config configs/resnet50_imagenet_lars.py \\
        --config.dataset.data_dir=DIR

For 32,768 images:

    --config.batch_size=32768 --config.num_epochs=64 --config.schedule.learning_rate=29
    --config.schedule.warmup_epochs=18 --config.optimizer.momentum=0.929
    --config.optimizer.weight_decay=1e-4 --config.schedule.max_warmup_fraction=0.3
"""

from configs.bases import imagenet


def get_config():
    config = imagenet("resnet50")
    config.model.zero_init_last = True
    config.label_smoothing = 0.1

    config.batch_size = 8192
    config.num_epochs = 56
    config.optimizer.name = "lars"
    config.optimizer.weight_decay = 2e-4
    config.optimizer.decay_norm_and_bias = False
    config.schedule.name = "polynomial"
    config.schedule.power = 2.0
    config.schedule.learning_rate = 10.0
    config.schedule.end_lr_fraction = 1e-5
    config.schedule.base_batch_size = 0
    config.schedule.warmup_epochs = 5
    return config
