"""Validation of keys and values, with the right key for a wrong one."""

from __future__ import annotations

import difflib
import math
from typing import Any

from train.config.keys import KEYS
from train.runtime.errors import UsageError

# Former names of keys, and the names that other libraries have for them.
OTHER_NAMES = {
    "accumulate": "grad_accum_steps",
    "arch": "model.name",
    "architecture": "model.name",
    "augment.crop_aspect": "augment.rrc_ratio",
    "augment.crop_scale": "augment.rrc_scale",
    "augment.erasing": "augment.random_erasing",
    "augment.erasing_area": "augment.random_erasing_scale",
    "augment.erasing_aspect": "augment.random_erasing_ratio",
    "augment.flip": "augment.hflip",
    "augment.mix_probability": "augment.mixup_prob",
    "augment.mix_switch": "augment.mixup_switch_prob",
    "augment.rand_layers": "augment.rand_num_ops",
    "augment.rand_probability": "augment.rand_prob",
    "augment.repeats": "augment.repeated_aug",
    "augment.vertical_flip": "augment.vflip",
    "batch_norm": "sync_batch_norm",
    "bs": "batch_size",
    "checkpoint.keep": "checkpoint.max_to_keep",
    "clip_grad": "optimizer.grad_clip_norm",
    "data": "dataset.data_dir",
    "data.max_bad_fraction": "loader.max_corrupt_fraction",
    "data.resident": "loader.cache_on_device",
    "data.resident_gib": "loader.device_cache_gib",
    "data.steps_per_call": "steps_per_execution",
    "data.threads": "loader.threads",
    "data.workers": "loader.workers",
    "data_path": "dataset.data_dir",
    "dataset.crop_ratio": "dataset.crop_pct",
    "dataset.held_out": "dataset.val_fraction",
    "dataset.held_out_seed": "dataset.val_seed",
    "dataset.size_epochs": "dataset.train_size_epochs",
    "drop": "model.dropout",
    "epochs": "num_epochs",
    "eval.ema": "eval.use_ema",
    "img_size": "dataset.image_size",
    "input_size": "dataset.image_size",
    "loss_threshold": "bce_target_threshold",
    "lr": "schedule.learning_rate",
    "model": "model.name",
    "num_workers": "loader.workers",
    "opt": "optimizer.name",
    "optimizer.backbone_rate": "optimizer.backbone_lr_scale",
    "optimizer.beta1": "optimizer.b1",
    "optimizer.beta2": "optimizer.b2",
    "optimizer.clip_norm": "optimizer.grad_clip_norm",
    "optimizer.decay": "optimizer.name",
    "optimizer.decay_norms": "optimizer.decay_norm_and_bias",
    "optimizer.epsilon": "optimizer.eps",
    "pretrained": "init_from",
    "resume": "init_from",
    "sched": "schedule.name",
    "schedule.end_rate": "schedule.end_lr_fraction",
    "schedule.one_cycle_rise": "schedule.pct_start",
    "schedule.scale_batch": "schedule.base_batch_size",
    "schedule.step_epochs": "schedule.milestone_epochs",
    "schedule.step_factor": "schedule.gamma",
    "schedule.step_shares": "schedule.milestones",
    "schedule.step_steps": "schedule.milestone_steps",
    "schedule.warmup_most": "schedule.max_warmup_fraction",
    "smoothing": "label_smoothing",
    "steps": "num_steps",
    "wd": "optimizer.weight_decay",
    "workers": "loader.workers",
}

GROUPS = tuple(dict.fromkeys(key.rpartition(".")[0] for key in KEYS if "." in key))


def check_value(name: str, value: Any) -> None:
    """Raise UsageError if ``value`` is not valid for the key ``name``."""
    key = KEYS[name]

    def error(expected: str) -> UsageError:
        return UsageError(f"config.{name} must be {expected}, not {value!r} ({key.meaning})")

    if isinstance(key.default, tuple):
        whole = key.example and all(is_a(int, v) for v in key.example)
        kind, numbers = (int, "integers") if whole else (float, "numbers")
        valid = isinstance(value, tuple) and all(is_a(kind, v) for v in value)
        if not valid or not (key.example or len(value) == len(key.default)):
            example = ",".join(str(v) for v in key.example or key.default)
            count = "" if key.example else f"{len(key.default)} "
            raise error(f"{count}{numbers} such as {example}")
    elif not is_a(type(key.default), value):
        raise error(_TYPE_NAMES[type(key.default)])

    if key.choices and value not in key.choices:
        raise error(" or ".join(repr(choice) for choice in key.choices))
    if key.automatic and -1 < value < 0:
        raise error("-1, 0 or more")
    for number in value if isinstance(value, tuple) else (value,):
        if key.minimum is not None and number < key.minimum:
            raise error(f"at least {key.minimum:g}")
        if key.below is not None and number >= key.below:
            raise error(f"below {key.below:g}")
        if key.maximum is not None and number > key.maximum:
            raise error(f"at most {key.maximum:g}")
    if key.ascending and list(value) != sorted(value):
        raise error("in ascending order")


_TYPE_NAMES = {bool: "True or False", int: "an integer", float: "a number", str: "text"}


def is_a(kind: type, value: Any) -> bool:
    """Return whether ``value`` is of ``kind``: an int is a float, a bool is neither."""
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def unknown_key(name: str) -> str:
    """Return the error message for a key that does not exist, with the key probably meant."""
    group, _, leaf = name.rpartition(".")
    groups = difflib.get_close_matches(group or leaf, GROUPS, n=1, cutoff=0.7)
    in_group = [key for key in KEYS if groups and key.startswith(f"{groups[0]}.")]
    candidates = (
        [OTHER_NAMES.get(name)],
        difflib.get_close_matches(name, KEYS, n=1, cutoff=0.85),
        # The right leaf in the wrong group or in none, such as "learning_rate".
        [key for key in KEYS if key.rpartition(".")[2] == leaf],
        [OTHER_NAMES.get(leaf)],
        difflib.get_close_matches(name, in_group, n=1, cutoff=0.5) if group else in_group,
        difflib.get_close_matches(name, KEYS, n=1, cutoff=0.5),
    )
    key = next((key for keys in candidates for key in keys if key), None)
    if key is None:
        return f"there is no key config.{name}; python -m train.main --help lists the keys"
    return f"there is no key config.{name}; did you mean config.{key}? ({KEYS[key].meaning})"
