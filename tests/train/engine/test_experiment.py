"""What a run is built of, and what makes its start an error."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from train.config.keys import KEYS
from train.config.loading import check_config, default_config
from train.data.class_names import check_classes
from train.data.sources.arrays import arrays_source
from train.engine import experiment
from train.engine.experiment import (
    BatchSizes,
    check_same_in_all_processes,
    make_batch_sizes,
    make_model,
    make_step_config,
)
from train.runtime import distributed
from train.runtime.errors import RunError, UsageError
from train.workdir.run_files import read_config


def test_batch_sizes(digits_config):
    digits_config.update(batch_size=48, grad_accum_steps=2, sync_batch_norm=False)
    assert make_batch_sizes(digits_config, 4, 360) == BatchSizes(48, 12, 24, 6, 24)
    digits_config.sync_batch_norm = True
    digits_config.eval.batch_size = 30
    assert make_batch_sizes(digits_config, 4, 360) == BatchSizes(48, 12, 24, 24, 32)
    digits_config.eval.batch_size = 32
    assert make_batch_sizes(digits_config, 4, 360).eval == 32
    # No more than the split needs, as a multiple of the devices.
    assert [make_batch_sizes(digits_config, 4, images).eval for images in (1, 4, 5)] == [4, 4, 8]


def test_step_config_has_the_values_of_the_keys(digits_config):
    digits_config.update(seed=5, grad_accum_steps=2, freeze="stem*", on_nonfinite="skip")
    digits_config.dataset.update(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    digits_config.ema.decay, digits_config.eval.use_ema = 0.9, False
    model = make_model(digits_config, 10)
    assert (model.num_classes, model.axis_name) == (10, None)
    made = make_step_config(digits_config, model, steps_per_epoch=7, num_steps=70)
    assert made.model == model.clone(frozen=("stem_conv", "stem_norm"))
    assert made.frozen == ("stem_conv", "stem_norm")
    assert (made.seed, made.grad_accum_steps, made.ema_decay) == (5, 2, 0.9)
    assert (made.evaluate_ema, made.skip_nonfinite) == (False, True)
    assert (made.mean, made.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert made.augment.fill == (26, 51, 76)
    digits_config.update(on_nonfinite="stop", freeze="", sync_batch_norm=True)
    model = make_model(digits_config, 10)
    assert model.axis_name == "batch"
    made = make_step_config(digits_config, model, steps_per_epoch=7, num_steps=70)
    assert (made.model, made.frozen, made.skip_nonfinite) == (model, (), False)


def test_dropout_is_that_of_the_named_model_unless_it_is_set(digits_config):
    model = digits_config.model
    for name, default in (("resnet18", 0.0), ("fcn_resnet50", None)):  # None: that of the head
        model.name, model.dropout = name, KEYS["model.dropout"].default
        assert make_model(digits_config, 10).dropout == default
        for rate in (0.0, 0.3):
            model.dropout = rate
            check_config(digits_config)
            assert make_model(digits_config, 10).dropout == rate
    model.dropout = -0.5
    with pytest.raises(UsageError, match=r"config\.model\.dropout must be -1, 0 or more"):
        check_config(digits_config)


def test_a_run_that_balances_is_not_advised_to(digits_config, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (80, 16, 16, 3), np.uint8)
    source = arrays_source(images, np.repeat([0, 1], [60, 20]))

    def warned(**keys):
        digits_config.update(batch_size=20, **keys)
        run = experiment.build_experiment(digits_config, str(tmp_path / "run"), (source, source))
        return "unbalanced" in {finding.kind for finding in run.findings}

    assert warned() and not warned(class_weights="balanced")
    assert not warned(class_weights="", logit_adjustment=1.0)


def test_outputs_may_exceed_the_classes_but_not_be_fewer(digits_config):
    digits_config.model.num_classes = 12
    assert make_model(digits_config, 10).num_classes == 12
    digits_config.model.num_classes = 10
    assert make_model(digits_config, 10).num_classes == 10
    with pytest.raises(UsageError, match=r"num_classes=10 is too small: .* has 11 classes"):
        make_model(digits_config, 11)


@pytest.mark.parametrize("change", ["order", "name"])
def test_run_is_not_resumed_with_other_classes(digits_run, tmp_path, change):
    """Labels would get another meaning."""
    path = tmp_path / "run"
    shutil.copytree(digits_run, path)
    experiment.build_experiment(read_config(str(path)), str(path))
    described = json.loads((path / "run.json").read_text())
    names = described["class_names"]
    described["class_names"] = [*names[:8], names[9], names[8] if change == "order" else "ten"]
    (path / "run.json").write_text(json.dumps(described))
    difference = {"order": "in another order", "name": "unknown: 8; missing: ten"}[change]
    with pytest.raises(RunError, match=f"trained on the classes .*{difference}"):
        experiment.build_experiment(read_config(str(path)), str(path))


class Records:
    """A split of ten records, of which one may be changed or unreadable."""

    weights = None

    def __init__(self, split="train", classes=("a", "b"), changed=None, size=10, names="{}.png"):
        self.name, self.split, self.class_names = "folder", split, classes
        self.size, self.changed, self.names = size, changed, names

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if self.names is None and index == 0:
            raise OSError("gone")
        return (b"other" if index == self.changed else b"bytes"), 0

    def record_name(self, index):
        return str(self.names).format(index)


def test_splits_with_other_classes_are_an_error():
    check_classes(Records(), Records("test"))
    with pytest.raises(UsageError, match="'train' lacks 'c'; 'test' lacks 'b'"):
        check_classes(Records(), Records("test", ("a", "c")))
    with pytest.raises(UsageError, match="they have another order"):
        check_classes(Records(), Records("test", ("b", "a")))


def compared(monkeypatch, config, *sources):
    """Return what the processes compare."""
    values = {}
    monkeypatch.setattr(distributed, "assert_equal", values.__setitem__)
    check_same_in_all_processes(config, *(SimpleNamespace(source=source) for source in sources))
    return values


def test_processes_compare_the_content_of_their_data(monkeypatch, digits_config):
    def fingerprint(**changes):
        return compared(monkeypatch, digits_config, Records(**changes))["'train' data"]

    assert fingerprint() == fingerprint()
    for changed in (0, 3, 4, 9):  # the first, the last and two between them
        assert fingerprint(changed=changed) != fingerprint()
    assert fingerprint(size=11) != fingerprint()
    assert fingerprint(names="{}.jpg") != fingerprint()
    assert fingerprint(classes=("b", "a")) != fingerprint()
    assert len(fingerprint(size=1)["records"]) == 1
    assert fingerprint(names=None)  # the first record is corrupt, which decoding it reports
    both = compared(monkeypatch, digits_config, Records(), Records("test"))
    assert {"'train' data", "'test' data"} <= both.keys()


def test_processes_compare_all_keys_but_those_of_the_machine(monkeypatch, digits_config):
    def keys(**values):
        digits_config.update(values)
        return compared(monkeypatch, digits_config)

    first = keys()
    assert keys(compilation_cache="elsewhere") == first
    digits_config.loader.update(threads=7, workers=3, max_corrupt_fraction=0.5)
    digits_config.dataset.data_dir = "/elsewhere"
    assert keys() == first
    assert keys(seed=4) != first
    assert {"version of the code", "versions of the libraries", "configuration"} == first.keys()


@pytest.mark.parametrize("name", ["folder", "segmentation_folder"])
def test_a_missing_folder_is_an_error_before_weights_are_downloaded(name, monkeypatch, tmp_path):
    monkeypatch.setattr(experiment, "find_weights", lambda config: pytest.fail("downloads"))
    config = default_config()
    config.init_from, config.dataset.name = "resnet50.a1_in1k", name
    with pytest.raises(UsageError, match=r"set --config\.dataset\.data_dir=FOLDER"):
        experiment.build_experiment(config, str(tmp_path / "run"))
    config.dataset.data_dir = str(tmp_path / "none")
    with pytest.raises(RunError, match="none' does not exist"):
        experiment.build_experiment(config, str(tmp_path / "run"))
