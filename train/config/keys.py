"""Every configuration key: its default, its meaning, and what it may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Key:
    """One key. Its type is its default's; ``neutral`` keys do not change what is learned.

    ``minimum`` and ``most`` are permitted values, ``below`` is the first that is not, ``rising``
    asks a tuple's numbers to be in order, and ``automatic`` takes -1, but nothing between it and 0.
    ``such_as`` is an example of a tuple that may be of any length, of whole numbers where it
    is; another tuple has as many numbers as its default.
    """

    default: Any
    meaning: str
    choices: tuple = ()
    minimum: float | None = None
    most: float | None = None
    below: float | None = None
    rising: bool = False
    such_as: tuple = ()
    automatic: bool = False
    neutral: bool = False


KEYS: dict[str, Key] = {
    "seed": Key(0, "Decides the initial weights, the order of the images and every augmentation.",
                minimum=0, below=2**32),
    "batch_size": Key(128, "Images in a training step, over all devices together.", minimum=1),
    "num_epochs": Key(90.0, "Length of the run in passes over the training images; on the"
                      " command line it replaces a recipe's num_steps.", minimum=0, most=1e6),
    "num_steps": Key(0, "Length of the run in steps; 0: num_epochs decides.", minimum=0,
                     below=2**31),
    "label_smoothing": Key(0.0, "Share of the target given to all classes alike.",
                           minimum=0, below=1),
    "loss": Key("cross_entropy", "What is minimised; 'binary_cross_entropy' asks of each class"
                " whether it is there.", choices=("cross_entropy", "binary_cross_entropy")),
    "loss_threshold": Key(0.0, "Of 'binary_cross_entropy': targets above this become 1, others"
                          " 0; 0: a label of a mixed image is there by its share.", minimum=0,
                          below=1),
    "accumulate": Key(1, "Parts that each device computes its share of a batch in, one after"
                      " another, to need less memory; batch norm takes each part's statistics.",
                      minimum=1),
    "init_from": Key("", "Weights to begin with: a workdir, a checkpoint, a weights file or a hub"
                     " id such as 'resnet50.a1_in1k'; a head of other classes is drawn afresh."),
    "init_head": Key("auto", "Whether to keep the head of those weights: 'auto' where it has as"
                     " many classes, and of a workdir the same ones.",
                     choices=("auto", "keep", "fresh")),
    "freeze": Key("", "Modules that keep their parameters and statistics, such as"
                  " 'stem*,stage[12]*'; 'backbone': all but the head."),
    "ema.decay": Key(0.0, "Keep a moving average of parameters and statistics, of which this share"
                     " stays at each step; 0: none.", minimum=0, below=1),
    "on_nonfinite": Key("stop", "Where a step's loss or gradients are not finite: 'stop' ends the"
                        " run and reports, 'skip' leaves the step out and counts.",
                        choices=("stop", "skip")),
    "deterministic": Key(False, "Have GPUs compute the same bits each time, which takes longer.",
                         neutral=True),
    "smoke": Key(False, "Only see that the recipe runs: two steps of a small batch of small"
                 " images, the digits in place of its data, one narrow block a stage, nothing"
                 " downloaded; the workdir is runs/NAME_smoke. Keys of the command line stay."),
    "batch_norm": Key("local", "Batch statistics of each device for itself, or of all together.",
                      choices=("local", "global")),
    "parallel": Key("pmap", "How a step is spread over the devices; equal but for rounding.",
                    choices=("pmap", "shard_map"), neutral=True),

    "compilation_cache": Key("auto", "Folder that compiled programs are kept in, for quick starts;"
                             " 'auto': as JAX_COMPILATION_CACHE_DIR says, or flax_resnet/compiled"
                             " in the user's cache directory; 'off': none.", neutral=True),

    "model.name": Key("resnet50", "A name of flax_resnet.list_models()."),
    "model.num_classes": Key(0, "Outputs of the head; 0: as many as the data have.", minimum=0),
    "model.dtype": Key("float32", "Type of the computation; parameters stay float32.",
                       choices=("float32", "bfloat16")),
    "model.stage_sizes": Key((), "Blocks in each stage instead of the model's own.", minimum=1,
                             such_as=(2, 2, 2, 2)),
    "model.width": Key(0, "Channels inside the first stage's blocks, which double with every"
                       " stage; 0: the model's own.", minimum=0, most=65536),
    "model.stem": Key("", "Stem instead of the model's own, such as 'small'."),
    "model.shortcut": Key("", "Shortcut instead of the model's own, such as 'zero_pad'."),
    "model.zero_init_last": Key(False, "Start every residual block as its shortcut."),
    "model.drop_path": Key(0.0, "Stochastic depth: rate of the last block, falling linearly to 0"
                           " at the first.", minimum=0, below=1),
    "model.dropout": Key(0.0, "Dropout before the head.", minimum=0, below=1),
    "model.block_dropout": Key(0.0, "Dropout before each block's last convolution.", minimum=0,
                               below=1),

    "dataset.name": Key("digits", "'digits', 'folder' for pictures in a folder a class, or"
                        " 'tfds:NAME' for any TFDS data set."),
    "dataset.data_dir": Key("", "The folder of pictures, or where TFDS data lie; '':"
                            " $TFDS_DATA_DIR or ~/tensorflow_datasets.", neutral=True),
    "dataset.train_split": Key("train", "Images to train on, in TFDS's split syntax; of a folder,"
                               " a subfolder."),
    "dataset.eval_split": Key("test", "Images to evaluate on, likewise; of a folder without it,"
                              " its val, validation, valid or test, or a part held out."),
    "dataset.held_out": Key(0.2, "Share of a folder's pictures kept for evaluation where it has no"
                            " subfolder for that.", minimum=1e-6, below=1),
    "dataset.held_out_seed": Key(0, "Decides which pictures those are.", minimum=0, below=2**32),
    "dataset.image_size": Key(224, "Height and width of the images that the model sees.",
                              minimum=1, most=4096),
    "dataset.train_sizes": Key((), "Sizes to train at, if others than image_size: one for the"
                               " whole run, or one from each of size_epochs on.", minimum=1,
                               most=4096, such_as=(128, 160, 192)),
    "dataset.size_epochs": Key((), "Epochs from which each of train_sizes holds, the first 0.",
                               minimum=0, most=1e6, rising=True, such_as=(0.0, 6.0, 12.0)),
    "dataset.crop_ratio": Key(1.0, "Share of the shorter side that the centre crop keeps: with"
                              " 0.875 and 224 pixels images are resized to 256 first.",
                              minimum=0.05, most=1),
    "dataset.interpolation": Key("bilinear", "How images are resized for the centre crop.",
                                 choices=("bilinear", "bicubic")),
    "dataset.mean": Key((0.485, 0.456, 0.406), "Mean of red, green, blue in 0…1, subtracted."),
    "dataset.std": Key((0.229, 0.224, 0.225), "Deviation of red, green, blue, divided by.",
                       minimum=1e-6),

    "data.resident": Key("auto", "Keep decoded images in device memory: 'auto' where they fit"
                         " and no random crop_scale is asked for.",
                         choices=("auto", "always", "never"), neutral=True),
    "data.resident_gib": Key(2.0, "Memory that 'auto' may take for images, in GiB.", minimum=0,
                             neutral=True),
    "data.threads": Key(0, "Threads that decode images; 0: one a processor core, and two more.",
                        minimum=0, neutral=True),
    "data.workers": Key(0, "Processes that decode images, for machines of many cores; 0: threads"
                        " of the training process.", minimum=0, neutral=True),
    "data.steps_per_call": Key(0, "Training steps in one dispatch where the images are in device"
                               " memory; 0: 1 on CPU, more on GPU and TPU.", minimum=0, most=1024,
                               neutral=True),
    "data.max_bad_fraction": Key(1e-3, "Share of images that may be undecodable, rounded up; with"
                                 " more the run ends.", minimum=0, most=1, neutral=True),

    "augment.repeats": Key(1, "Times that an image is in a batch, each time augmented anew; an"
                           " epoch's steps then see so many times fewer images.", minimum=1),
    "augment.crop_scale": Key((1.0, 1.0), "Smallest and largest share of the image's area that a"
                              " random crop takes, before resizing; (1, 1): the centre crop.",
                              minimum=1e-3, most=1, rising=True),
    "augment.crop_aspect": Key((3 / 4, 4 / 3), "Lowest and highest ratio of width to height of a"
                               " random crop.", minimum=1e-2, most=100, rising=True),
    "augment.flip": Key(False, "Mirror half of the training images left to right."),
    "augment.vertical_flip": Key(False, "Turn half of the training images upside down."),
    "augment.pad_crop": Key(0, "Pad by this many pixels and crop back at random.", minimum=0,
                            most=4096),
    "augment.policy": Key("", "One random operation an image ('trivial', TrivialAugment's wide"
                          " space), or several ('rand', RandAugment).",
                          choices=("", "trivial", "rand")),
    "augment.rand_layers": Key(2, "Operations that 'rand' does, one after another.", minimum=1,
                               most=10),
    "augment.rand_magnitude": Key(9, "How strong these are, 0 to 30.", minimum=0, most=30),
    "augment.rand_probability": Key(1.0, "Probability of doing each of them at all; timm's is"
                                    " 0.5.", minimum=0, most=1),
    "augment.color_jitter": Key((0.0, 0.0, 0.0, 0.0), "How far brightness, contrast and"
                                " saturation may leave 1, and the hue 0 (0.5: any hue).",
                                minimum=0, most=1),
    "augment.cutout": Key(0, "Blank a square of this many pixels a side, around any pixel.",
                          minimum=0, most=4096),
    "augment.erasing": Key(0.0, "Probability of blanking a random box.", minimum=0, most=1),
    "augment.erasing_area": Key((0.02, 0.33), "Smallest and largest share of the image that the"
                                " box takes.", minimum=1e-3, most=1, rising=True),
    "augment.erasing_aspect": Key((0.3, 3.3), "Smallest and largest height of the box over its"
                                  " width.", minimum=1e-2, most=100, rising=True),
    "augment.mixup": Key(0.0, "Blend two images and their labels by a share of Beta(a, a), where"
                         " this is a; 0: don't.", minimum=0, most=100),
    "augment.cutmix": Key(0.0, "Paste a box of one image into another by a share of Beta(a, a),"
                          " where this is a; 0: don't.", minimum=0, most=100),
    "augment.mix_probability": Key(1.0, "Probability of mixing two images at all.", minimum=0,
                                   most=1),
    "augment.mix_switch": Key(0.5, "Probability of cutmix where mixup is on, too.", minimum=0,
                              most=1),

    "optimizer.name": Key("sgd", "The optimiser.",
                          choices=("sgd", "adam", "adamw", "lars", "lamb")),
    "optimizer.momentum": Key(0.9, "Momentum of 'sgd' and 'lars'; the others' first decay, b1.",
                              minimum=0, below=1),
    "optimizer.nesterov": Key(False, "Nesterov's momentum; beside beta2, NAdam's."),
    "optimizer.beta2": Key(0.999, "Second decay, b2, of 'adam', 'adamw' and 'lamb'.", minimum=0,
                           below=1),
    "optimizer.epsilon": Key(1e-8, "What 'adam', 'adamw' and 'lamb' add to the root they divide"
                             " by.",
                             minimum=1e-20, most=1),
    "optimizer.weight_decay": Key(1e-4, "Weight decay of kernels; see decay and decay_norms.",
                                  minimum=0),
    "optimizer.decay": Key("auto", "How: 'coupled' joins it to the gradient, an L2 penalty;"
                           " 'decoupled' adds it to the update, times the learning rate; 'auto':"
                           " decoupled for 'adamw' and 'lamb', else coupled.",
                           choices=("auto", "coupled", "decoupled")),
    "optimizer.decay_norms": Key(False, "Decay the norms' scales and all biases, too."),
    "optimizer.trust_coefficient": Key(1e-3, "Of 'lars': length of a kernel's update, before the"
                                       " learning rate, over the kernel's own.", minimum=1e-12,
                                       most=1e3),
    "optimizer.clip_norm": Key(0.0, "Shorten the gradients to this length, of all together,"
                               " before anything else; 0: don't.", minimum=0),
    "optimizer.backbone_rate": Key(1.0, "Factor on the learning rate of everything but the head.",
                                   minimum=0),

    "schedule.name": Key("cosine", "How the learning rate falls after the warm-up; 'one_cycle'"
                         " has its own rise.",
                         choices=("constant", "step", "cosine", "polynomial", "one_cycle")),
    "schedule.learning_rate": Key(0.1, "The highest learning rate, for the whole batch or, with"
                                  " scale_batch, for so many images.", minimum=0),
    "schedule.scale_batch": Key(0, "Number of images that learning_rate is for: it is multiplied"
                                " by batch_size over this; 0: it is taken as it is.", minimum=0),
    "schedule.warmup_epochs": Key(0.0, "Epochs of linear rise; the first step has the first of"
                                  " equal parts.", minimum=0, most=1e6),
    "schedule.warmup_steps": Key(0, "Steps of linear rise, in place of warmup_epochs.",
                                 minimum=0, below=2**31),
    "schedule.warmup_most": Key(0.25, "Share of the run that the warm-up takes at most: a longer"
                                " one is cut to it.", minimum=0, most=1),
    "schedule.step_shares": Key((1 / 3, 2 / 3, 8 / 9), "Shares of the run after which 'step'"
                                " lowers the rate: by default as at 30, 60, 80 of 90 epochs.",
                                minimum=0, most=1, rising=True, such_as=(0.5, 0.75)),
    "schedule.step_epochs": Key((), "Epochs at which it does, in place of the shares.",
                                minimum=0, most=1e6, rising=True, such_as=(30.0, 60.0, 80.0)),
    "schedule.step_steps": Key((), "Steps at which it does, in place of the shares.", minimum=0,
                               below=2**31, rising=True, such_as=(32000, 48000)),
    "schedule.step_factor": Key(0.1, "What 'step' multiplies the rate by.", minimum=0),
    "schedule.end_rate": Key(0.0, "Share of the highest rate that 'cosine' and 'polynomial' end"
                             " at.", minimum=0, most=1),
    "schedule.power": Key(1.0, "Power of 'polynomial'; 1: a straight line.", minimum=0, most=100),
    "schedule.one_cycle_rise": Key(0.3, "Share of the run over which 'one_cycle' rises.",
                                   minimum=0, below=1),

    "eval.every_epochs": Key(-1.0, "Evaluate this often, and at the end; 0: only at the end; -1:"
                           " every epoch of 20 steps or more, a hundred times a run at most.",
                           minimum=-1, automatic=True, neutral=True),
    "eval.ema": Key(True, "Evaluate the moving average where there is one."),
    "eval.batch_size": Key(0, "Images in an evaluation step; 0: batch_size / accumulate.",
                           minimum=0, neutral=True),
    "checkpoint.every_epochs": Key(-1.0, "Save this often, and at the end; 0: only at the end; -1:"
                                 " every epoch of 20 steps or more, a hundred times a run at most.",
                                 minimum=-1, automatic=True, neutral=True),
    "checkpoint.every_steps": Key(0, "Save after so many steps, too; 0: don't.", minimum=0,
                                  neutral=True),
    "checkpoint.every_minutes": Key(0.0, "Save after so many minutes, too; 0: don't.", minimum=0,
                                    neutral=True),
    "checkpoint.keep": Key(3, "Latest checkpoints kept, beside the best.", minimum=1,
                           neutral=True),
    "log.every_steps": Key(0, "Write metrics this often; 0: ten times an epoch, but every 10 to"
                           " 100 steps.", minimum=0, neutral=True),
}  # fmt: skip
