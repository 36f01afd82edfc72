"""Every configuration key: its default, its meaning and its valid values."""

from flax_resnet.images.pixels import RGB_MEAN, RGB_STD
from flax_resnet.registry import ACTIVATIONS, BLOCKS, MODELS, NORMS
from train.config.key import Key
from train.config.registries import (
    LOGGERS,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    SCHEDULES,
    SPLIT_METRICS,
    TASKS,
    TOP_K,
)
from train.data.registries import AUGMENTATIONS, SOURCES

KEYS: dict[str, Key] = {
    # The run ---------------------------------------------------------------------------------
    "seed": Key(0, "Seed of the initial weights, the order of the images and all augmentation.",
        minimum=0, below=2**32),
    "batch_size": Key(128, "Global batch size: images per training step on all devices together.",
        minimum=1),
    "num_epochs": Key(90.0, "Training length in epochs. On the command line it replaces the"
        " num_steps of a recipe.", minimum=0, maximum=1e6),
    "num_steps": Key(0, "Training length in steps; 0: use num_epochs.", minimum=0, below=2**31),
    "init_from": Key("", "Pretrained weights: a workdir, a checkpoint, a weights file or a hub id"
        " such as 'resnet50.a1_in1k'; 'FILE#ema' names one of several networks in a file. A head"
        " with another number of classes is initialized at random."),
    "init_head": Key("auto", "Whether to load the head of those weights: 'auto' if the number of"
        " classes matches and, from a workdir, their names.", choices=("auto", "keep", "fresh")),
    "init_preprocessing": Key("auto", "Preprocessing that belongs to those weights. 'auto':"
        " dataset.mean, std, image_size, crop_pct and interpolation follow it unless they are set,"
        " and Keras's BGR in 0…255 is folded into the stem; 'off': ignore it.",
        choices=("auto", "off")),
    "freeze": Key("", "Modules whose parameters and batch statistics stay fixed, such as"
        " 'stem*,stage[12]*'; 'backbone': everything but the head."),
    "on_nonfinite": Key("stop", "If the loss or a gradient of a step is NaN or infinite: 'stop'"
        " ends the run with a report, 'skip' skips and counts the update.",
        choices=("stop", "skip")),
    "deterministic": Key(False, "Use only deterministic GPU operations, which are slower.",
        neutral=True),
    "smoke": Key(False, "Smoke test of a recipe: two steps of a small batch of small images,"
        " embedded data in place of its own, one narrow block per stage, no download. The workdir"
        " is runs/NAME_smoke. Keys given on the command line keep their values."),
    "init_followed": Key((), "Keys of dataset that follow the preprocessing of init_from; set when"
        " the run starts.", example=("mean",), neutral=True),
    "recipe": Key("", "Checksum of the recipe if it registers own parts; set when it runs.",
        neutral=True),
    "compilation_cache": Key("auto", "Directory of the persistent compilation cache; 'auto':"
        " JAX_COMPILATION_CACHE_DIR or flax_resnet/compiled in the user's cache directory; 'off':"
        " no cache.", neutral=True),

    # Task ------------------------------------------------------------------------------------
    "task": Key("classification", "What the network learns: 'classification' of images of one class"
        " each, 'multi_label' of images of any number of classes, 'segmentation' of pixels.",
        registry=TASKS),
    "loss": Key("cross_entropy", "Training loss; 'binary_cross_entropy' treats every class as a"
        " binary problem, 'focal' reduces the loss of well-classified images. With"
        " task='multi_label' both cross entropies are that of a sigmoid per class, and 'asymmetric'"
        " reduces the loss of easy negative labels.", registry=LOSSES),
    "focal_gamma": Key(2.0, "With 'focal': exponent of the factor (1 - p) of each image's loss; 0:"
        " cross entropy.", minimum=0, maximum=10),
    "asymmetric_gamma": Key((0.0, 4.0), "With 'asymmetric': exponents of the factors (1 - p) of"
        " positive labels and p of negative ones.", minimum=0, maximum=10),
    "asymmetric_margin": Key(0.05, "With 'asymmetric': probability below which a negative label has"
        " no loss.", minimum=0, below=1),
    "pos_weight": Key("", "With task='multi_label': factors of the loss of positive labels:"
        " 'balanced' takes negative per positive labels of each class; or numbers by class, 1 for"
        " the others, such as 'cat=2,dog=0.5'. '': none."),
    "class_weights": Key("", "Weights of the classes in the training loss: 'balanced' gives all"
        " classes the same total weight; or numbers by class, 1 for the others, such as"
        " 'cat=2,dog=0.5'. Scaled to a mean of 1 over the images of every batch. '': none."),
    "logit_adjustment": Key(0.0, "Logit adjustment for imbalanced classes: this multiple of the"
        " logarithm of each class's share is added to the logits in the training loss; 1 aims at"
        " balanced accuracy; 0: none.", minimum=0, maximum=10),
    "aux_loss_weight": Key(0.5, "With task='segmentation': factor of the loss of the auxiliary head"
        " (model.aux_head).", minimum=0, maximum=100),
    "label_smoothing": Key(0.0, "Label smoothing: share of the target distributed uniformly over"
        " all classes.", minimum=0, below=1),
    "bce_target_threshold": Key(0.0, "With 'binary_cross_entropy': targets above this become 1, the"
        " others 0; 0: keep the soft targets of mixed images.", minimum=0, below=1),

    # Parallelism and memory ------------------------------------------------------------------
    "parallel": Key("pmap", "How to distribute a step over devices; both give the same result up to"
        " rounding.", choices=("pmap", "shard_map"), neutral=True),
    "sync_batch_norm": Key(False, "Synchronize batch norm statistics over all devices; otherwise"
        " each device normalizes its own images."),
    "grad_accum_steps": Key(1, "Gradient accumulation: micro-batches that each device splits its"
        " batch into, to save memory. Batch norm sees one micro-batch.", minimum=1),
    "steps_per_execution": Key(0, "Training steps per dispatch for data cached on the device; 0: 1"
        " on CPU, more on GPU and TPU.", minimum=0, maximum=1024, neutral=True),
    "ema.decay": Key(0.0, "Decay of an exponential moving average (EMA) of parameters and batch"
        " statistics; 0: no EMA.", minimum=0, below=1),

    # Model -----------------------------------------------------------------------------------
    "model.name": Key("resnet50", "A name in flax_resnet.list_models().",
        registry=MODELS),
    "model.num_classes": Key(0, "Outputs of the head; 0: the number of classes of the data.",
        minimum=0, maximum=10**7),
    "model.dtype": Key("float32", "Compute type (mixed precision); parameters stay float32.",
        choices=("float32", "bfloat16")),
    "model.stage_sizes": Key((), "Blocks per stage; (): those of the named model.", minimum=1,
        maximum=1000, example=(2, 2, 2, 2)),
    "model.width": Key(0, "Channels inside the blocks of the first stage, doubled in every stage;"
        " 0: those of the named model.", minimum=0, maximum=65536),
    "model.block": Key("", "Block, such as 'bottleneck'; '': that of the named model.",
        registry=BLOCKS),
    "model.norm": Key("", "Norm; '': that of the named model.", registry=NORMS),
    "model.activation": Key("", "Activation after the norms; '': that of the named model.",
        registry=ACTIVATIONS),
    "model.stem": Key("", "Stem, such as 'cifar'; '': that of the named model."),
    "model.shortcut": Key("", "Shortcut, such as 'zero_pad'; '': that of the named model."),
    "model.zero_init_last": Key(False, "Initialize every residual block as its shortcut."),
    "model.drop_path": Key(0.0, "Stochastic depth: rate of the last block, decreasing linearly to 0"
        " at the first.", minimum=0, below=1),
    "model.dropout": Key(-1.0, "Dropout rate before the head, or in the heads of a network for"
        " segmentation; -1: that of the named model.", minimum=-1, below=1, automatic=True),
    "model.block_dropout": Key(0.0, "Dropout rate before the last convolution of each block.",
        minimum=0, below=1),

    # Networks for segmentation, such as deeplabv3_resnet50.
    "model.backbone": Key("", "ResNet under the head; '': that of the named model.",
        registry=MODELS),
    "model.output_stride": Key(0, "Maximum ratio of image to feature-map resolution; further"
        " strides become dilation; 0: that of the named model.", minimum=0, maximum=32),
    "model.aux_head": Key(False, "Second head on the map before the last stage, for an auxiliary"
        " loss."),
    "model.head_channels": Key(0, "Channels of the head's convolutions; 0: those of the named"
        " model.", minimum=0, maximum=65536),
    "model.head_norm": Key("", "Norm of the heads; '': that of the named model.", registry=NORMS),
    "model.pyramid_channels": Key(0, "Channels of the feature pyramid; 0: those of the named"
        " model.", minimum=0, maximum=65536),
    "model.freeze_batch_norm": Key(False, "Keep the running statistics of the backbone, and use"
        " them in training, for batches of few images."),

    # Data ------------------------------------------------------------------------------------
    "dataset.name": Key("digits", "'digits', 'folder' for images in one folder per class,"
        " 'table' for a table of labels, 'tfds:NAME', 'hf:NAME' for a TFDS or Hugging Face data"
        " set, 'arrays' for NumPy files, 'webdataset' for tar shards; with masks"
        " 'segmentation_folder', 'drawn_shapes'.", registry=SOURCES,
        separator=":"),
    "dataset.data_dir": Key("", "Image folder, that of a table's images (default: the table's own),"
        " file or folder of arrays, folder of shards, cache of Hugging Face data, or directory of"
        " prepared TFDS data, by default $TFDS_DATA_DIR or ~/tensorflow_datasets.", neutral=True),
    "dataset.labels": Key("", "Table of labels, a CSV or Parquet file with a row per image.",
        neutral=True),
    "dataset.image_key": Key("", "Name of the images in the data: a feature of a TFDS data set, a"
        " column, an array, or a file extension in tar files; '': detected."),
    "dataset.label_key": Key("", "Name of the labels in the data, as image_key; '': detected. With"
        " task='multi_label' also several columns of zeros and ones, 'cat,dog'."),
    "dataset.label_separator": Key("", "Separator of the classes of an image in a table, which may"
        " have several or none; '': '|' with task='multi_label', otherwise one class per image."),
    "dataset.split_key": Key("", "Column of the splits in the table; '': 'split' if there is one,"
        " 'none': none."),
    "dataset.group_key": Key("", "Column of the groups in the table, such as patients, which are"
        " held out as a whole; '': 'group' if there is one, 'none': none."),
    "dataset.weight_key": Key("", "Column of the rows' weights in the training loss; '': 'weight'"
        " if there is one, 'none': none."),
    "dataset.group_pattern": Key("", "Groups by the names of the files, instead of group_key: a"
        r" regular expression with the group in parentheses, such as '(patient\d+)_'."),
    "dataset.class_names": Key((), "Names of the classes of a table, in order; (): all labels,"
        " sorted.", example=("cat", "dog")),
    "dataset.mask_values": Key((), "Values of the classes in masks, in the order of the classes,"
        " such as 0,255; (): class k has the value k.", minimum=0, maximum=255, example=(0, 255)),
    "dataset.ignore_values": Key((255,), "Values in masks of pixels that have no part in loss and"
        " metrics; one that is in mask_values is a class.", minimum=0, maximum=255,
        example=(0, 255)),
    "dataset.delimiter": Key("", "Character between the columns of a CSV table, or 'tab'; '':"
        " comma, semicolon or tab, detected."),
    "dataset.train_split": Key("train", "Training split, or a part such as 'train[:80%]', a"
        " subfolder of an image folder, or a pattern of shards such as 'train-{000..012}.tar'."),
    "dataset.eval_split": Key("test", "Evaluation split, as train_split. Without it, val,"
        " validation, valid or test is used, or of an image folder a held-out part of the training"
        " images."),
    "dataset.val_fraction": Key(0.2, "Fraction of an image folder or table held out for"
        " evaluation if it has no split for that.", minimum=1e-6, below=1),
    "dataset.val_seed": Key(0, "Seed of that selection.", minimum=0, below=2**32),
    "dataset.fold": Key("", "Cross-validation: 'k/n' trains on all but the k-th of n stratified"
        " parts of the training split and evaluates on that part, the split 'held_out'. Groups"
        " stay together."),
    "dataset.image_size": Key(224, "Size of the model input in pixels: the side of a square, or"
        " (height, width).", minimum=1, maximum=4096, pair=True),
    "dataset.channels": Key(3, "Channels of an image: 3 for RGB, 1 for gray; others as stored, in"
        " TIFF files and arrays.", minimum=1, maximum=16),
    "dataset.bits": Key(8, "Bits of a value: 16 keeps those of PNG and TIFF files and arrays of 16"
        " bits, 8 their upper 8.", choices=(8, 16)),
    "dataset.train_sizes": Key((), "Shorter sides of the training images in pixels, if not those of"
        " image_size: one, or one for each epoch in train_size_epochs.", minimum=1, maximum=4096,
        example=(128, 160, 192)),
    "dataset.train_size_epochs": Key((), "Epoch from which each of train_sizes is used; the first"
        " is 0.", minimum=0, maximum=1e6, ascending=True, example=(0.0, 6.0, 12.0)),
    "dataset.crop_pct": Key(1.0, "Fraction of the shorter side that the center crop keeps: with"
        " 0.875 and 224 pixels, images are resized to 256 first.", minimum=0.05, maximum=1),
    "dataset.interpolation": Key("bilinear", "Interpolation of the resize before the center crop.",
        choices=("bilinear", "bicubic")),
    "dataset.mean": Key(RGB_MEAN, "Mean of each channel, or of all (in Python: (0.5,)), in 0…1,"
        " subtracted from the input. The default is 0.5 for channels other than RGB.",
        minimum=-1000, maximum=1000, example=RGB_MEAN),
    "dataset.std": Key(RGB_STD, "Standard deviation of each channel, or of all, in 0…1, divided"
        " by. The default is 0.25 for channels other than RGB.", minimum=1e-6, maximum=1000,
        example=RGB_STD),

    # Input pipeline --------------------------------------------------------------------------
    "loader.cache_on_device": Key("auto", "Cache decoded images in device memory: 'auto' if they"
        " fit in device_cache_gib and are not cropped at random (rrc_scale).",
        choices=("auto", "always", "never"), neutral=True),
    "loader.device_cache_gib": Key(2.0, "Memory limit of 'auto', in GiB.", minimum=0, neutral=True),
    "loader.sampling": Key("shuffle", "'shuffle': every image once per epoch; 'balanced': all"
        " classes equally often, images of rare ones several times per epoch.",
        choices=("shuffle", "balanced")),
    "loader.threads": Key(0, "Decoding threads; 0: number of processor cores plus one, and one for"
        " images below 40×40 that are cached.", minimum=0,
        neutral=True),
    "loader.workers": Key(0, "Decoding processes, for machines with many cores; 0: decode in"
        " threads of the training process.", minimum=0, neutral=True),
    "loader.max_corrupt_fraction": Key(1e-3, "Fraction of images that may fail to decode, rounded"
        " up; the run ends if more do.", minimum=0, maximum=1, neutral=True),

    # Augmentation ----------------------------------------------------------------------------
    "augment.rrc_scale": Key((1.0, 1.0), "Random-resized crop: range of the area fraction; (1, 1):"
        " center crop.", minimum=1e-3, maximum=1, ascending=True),
    "augment.rrc_full_epochs": Key(0.0, "Shorter runs crop less: the lower bound of rrc_scale goes"
        " from the upper one to its value in proportion to the length of the run, up to this many"
        " epochs. 0: rrc_scale whatever the length.", minimum=0, maximum=1e6),
    "augment.rrc_ratio": Key((3 / 4, 4 / 3), "Random-resized crop: range of the aspect ratio, width"
        " to height.", minimum=1e-2, maximum=100, ascending=True),
    "augment.hflip": Key(False, "Random horizontal flip, probability 0.5."),
    "augment.vflip": Key(False, "Random vertical flip, probability 0.5."),
    "augment.scale_range": Key((0.5, 2.0), "With task='segmentation': range of the random scale of"
        " image and mask before the random crop; (1, 1): none.", minimum=0.05, maximum=20,
        ascending=True),
    "augment.crop_size": Key(0, "With task='segmentation': size of the random crop in pixels, the"
        " side of a square or (height, width); 0: dataset.image_size.", minimum=0, maximum=4096,
        pair=True),
    "augment.pad_crop": Key(0, "Random crop after padding by this many pixels.", minimum=0,
        maximum=4096),
    "augment.policy": Key("", "'trivial': TrivialAugment (wide), one random operation per image;"
        " 'rand': RandAugment, rand_num_ops of them; several, and own ones, in order:"
        " 'rand+blur'. '': none.", registry=AUGMENTATIONS, separator="+"),
    "augment.rand_num_ops": Key(2, "RandAugment: number of operations.", minimum=1, maximum=10),
    "augment.rand_magnitude": Key(9, "RandAugment: magnitude, 0 to 30.", minimum=0, maximum=30),
    "augment.rand_prob": Key(1.0, "RandAugment: probability of each operation (timm uses 0.5).",
        minimum=0, maximum=1),
    "augment.color_jitter": Key((0.0, 0.0, 0.0, 0.0), "Color jitter: maximum change of brightness,"
        " contrast, saturation and hue (0.5: any hue).", minimum=0, maximum=1),
    "augment.cutout": Key(0, "Cutout: side in pixels of a square that is filled in.", minimum=0,
        maximum=4096),
    "augment.random_erasing": Key(0.0, "Random erasing: probability.", minimum=0, maximum=1),
    "augment.random_erasing_scale": Key((0.02, 0.33), "Random erasing: range of the area fraction.",
        minimum=1e-3, maximum=1, ascending=True),
    "augment.random_erasing_ratio": Key((0.3, 3.3), "Random erasing: range of the aspect ratio,"
        " height to width.", minimum=1e-2, maximum=100, ascending=True),
    "augment.mixup": Key(0.0, "Mixup: alpha of the Beta distribution; 0: off.", minimum=0,
        maximum=100),
    "augment.cutmix": Key(0.0, "CutMix: alpha of the Beta distribution; 0: off.", minimum=0,
        maximum=100),
    "augment.mixup_prob": Key(1.0, "Probability of applying mixup or CutMix.", minimum=0,
        maximum=1),
    "augment.mixup_switch_prob": Key(0.5, "Probability of CutMix if both are on.", minimum=0,
        maximum=1),
    "augment.repeated_aug": Key(1, "Repeated augmentation: copies of each image in a batch, each"
        " augmented independently. Batches then hold that many times fewer distinct images.",
        minimum=1),

    # Optimizer -------------------------------------------------------------------------------
    "optimizer.name": Key("sgd", "Weight decay is decoupled in 'adamw' and 'lamb', an L2 penalty in"
        " the others.", registry=OPTIMIZERS),
    "optimizer.momentum": Key(0.9, "Momentum of 'sgd' and 'lars'.", minimum=0, below=1),
    "optimizer.nesterov": Key(False, "Nesterov momentum; with 'adam' and its variants, NAdam."),
    "optimizer.b1": Key(0.9, "Decay of the first moment, of 'adam', 'adamw' and 'lamb'.", minimum=0,
        below=1),
    "optimizer.b2": Key(0.999, "Decay of the second moment, of 'adam', 'adamw' and 'lamb'.",
        minimum=0, below=1),
    "optimizer.eps": Key(1e-8, "Epsilon in the denominator, of 'adam', 'adamw' and 'lamb'.",
        minimum=1e-20, maximum=1),
    "optimizer.weight_decay": Key(1e-4, "Weight decay of the kernels.", minimum=0),
    "optimizer.decay_norm_and_bias": Key(False, "Apply weight decay to norm scales and all biases"
        " too."),
    "optimizer.trust_coefficient": Key(1e-3, "Trust coefficient of 'lars'.", minimum=1e-12,
        maximum=1e3),
    "optimizer.grad_clip_norm": Key(0.0, "Clip gradients to this global norm; 0: no clipping.",
        minimum=0),
    "optimizer.backbone_lr_scale": Key(1.0, "Learning rate factor of everything but the head.",
        minimum=0),

    # Learning rate schedule ------------------------------------------------------------------
    "schedule.name": Key("cosine", "Shape of the schedule after the warm-up; 'one_cycle' includes"
        " its own.", registry=SCHEDULES),
    "schedule.learning_rate": Key(0.1, "Peak learning rate.", minimum=0),
    "schedule.base_batch_size": Key(0, "Linear scaling: learning_rate is multiplied by batch_size /"
        " base_batch_size; 0: no scaling.", minimum=0),
    "schedule.warmup_epochs": Key(0.0, "Warm-up length in epochs (linear).", minimum=0,
        maximum=1e6),
    "schedule.warmup_steps": Key(0, "Warm-up length in steps, instead of warmup_epochs.", minimum=0,
        below=2**31),
    "schedule.max_warmup_fraction": Key(0.25, "Upper limit of the warm-up, as a fraction of the"
        " run.", minimum=0, maximum=1),
    "schedule.milestones": Key((1 / 3, 2 / 3, 8 / 9), "'step': fractions of the run after which the"
        " rate is multiplied by gamma; the default is 30, 60 and 80 of 90 epochs.", minimum=0,
        maximum=1, ascending=True, example=(0.5, 0.75)),
    "schedule.milestone_epochs": Key((), "'step': the same in epochs, instead of milestones.",
        minimum=0, maximum=1e6, ascending=True, example=(30.0, 60.0, 80.0)),
    "schedule.milestone_steps": Key((), "'step': the same in steps, instead of milestones.",
        minimum=0, below=2**31, ascending=True, example=(32000, 48000)),
    "schedule.gamma": Key(0.1, "'step': factor at each milestone.", minimum=0),
    "schedule.end_lr_fraction": Key(0.0, "'cosine' and 'polynomial': final learning rate as a"
        " fraction of the peak.", minimum=0, maximum=1),
    "schedule.power": Key(1.0, "'polynomial': exponent; 1: linear.", minimum=0, maximum=100),
    "schedule.pct_start": Key(0.3, "'one_cycle': fraction of the run in which the rate rises.",
        minimum=0, below=1),

    # Evaluation, checkpoints, logging --------------------------------------------------------
    "eval.every_epochs": Key(-1.0, "Evaluation interval in epochs; the end is always evaluated. 0:"
        " only the end; -1: every epoch, but no more often than every 20 steps and at most about"
        " 100 times per run.", minimum=-1, automatic=True, neutral=True),
    "eval.use_ema": Key(True, "Evaluate the EMA of the weights if there is one."),
    "eval.metrics": Key((), "Metrics in addition to loss, top-1 and top-5, such as 'top3': top-k"
        " for any k.", example=("top1",), registry=METRICS, pattern=TOP_K, neutral=True),
    "eval.metric": Key("", "Metric that decides which checkpoint is the best; also top-k for any k,"
        " such as 'top3'. '': 'map' with task='multi_label', 'miou' with 'segmentation',"
        " otherwise 'top1'.",
        choices=("", "loss", *SPLIT_METRICS), registry=METRICS, pattern=TOP_K, neutral=True),
    "eval.batch_size": Key(0, "Global batch size of evaluation; 0: batch_size / grad_accum_steps.",
        minimum=0, neutral=True),
    "stop.patience": Key(0, "Early stopping: the run ends after this many evaluations in a row"
        " without progress in eval.metric; 0: never.", minimum=0, neutral=True),
    "stop.min_delta": Key(0.0, "Smallest improvement of eval.metric that counts as progress.",
        minimum=0, neutral=True),
    "stop.minutes": Key(0.0, "Time limit of the run, of all sessions together; it ends at the next"
        " logged step. 0: none.", minimum=0, neutral=True),
    "checkpoint.every_epochs": Key(-1.0, "Checkpoint interval in epochs; the end is always saved."
        " 0: only the end; -1: as for eval.every_epochs.", minimum=-1, automatic=True,
        neutral=True),
    "checkpoint.every_steps": Key(0, "Additional checkpoint interval in steps; 0: none.", minimum=0,
        neutral=True),
    "checkpoint.every_minutes": Key(0.0, "Additional checkpoint interval in minutes; 0: none.",
        minimum=0, neutral=True),
    "checkpoint.max_to_keep": Key(3, "Number of latest checkpoints to keep, in addition to the"
        " best.", minimum=1, neutral=True),
    "log.every_steps": Key(0, "Steps that each row of training metrics is averaged over, at least;"
        " 0: a tenth of an epoch, within 10 to 100.", minimum=0, neutral=True),
    "log.to": Key(("tensorboard",), "Loggers in addition to metrics.jsonl and report.html.",
        example=("tensorboard", "mlflow"), registry=LOGGERS, neutral=True),
    "log.profile_steps": Key((), "First and last step, counted from 1, of a profile that"
        " jax.profiler writes to profile/ in the workdir; (): no profile.", minimum=1, below=2**31,
        ascending=True, example=(10, 15), neutral=True),
}  # fmt: skip

# The keys of the group "dataset" that say where the data are and what they hold.
DATA_KEYS = (
    *("name", "data_dir", "labels", "class_names", "delimiter", "image_key", "label_key"),
    *("label_separator", "split_key", "group_key", "weight_key", "group_pattern", "fold"),
    *("mask_values", "ignore_values"),
)
