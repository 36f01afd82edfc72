"""Warnings before and during training."""

from train import (
    default_config,
    register_loss,
    register_optimizer,
    register_schedule,
    register_task,
)
from train.data.sampler import EpochSampler
from train.engine.experiment import make_batch_sizes
from train.engine.intervals import make_intervals
from train.reporting import run_summary
from train.reporting.console import Console
from train.tasks.classification import cross_entropy, make_cross_entropy, mixed_cross_entropy, top1
from train.tasks.ineffective import own_loss_warnings
from train.tasks.task import Task


def test_warnings_of_a_configuration_that_does_not_fit():
    config = default_config()
    config.update(batch_size=10, num_epochs=3.0)
    config.schedule.update(name="step", warmup_epochs=5.0, milestone_epochs=(2.0, 9.0))
    intervals = make_intervals(config, EpochSampler(100, 10, seed=0))

    def warnings(num_devices):
        batch_sizes = make_batch_sizes(config, num_devices, 10_000)
        return run_summary.config_warnings(config, intervals, batch_sizes)

    first, second, third = warnings(num_devices=2)
    assert "warm-up shortened from 50 to 8 steps" in first and "run of 30" in first
    assert "step 90" in second and "ends after 30" in second
    assert "averages over only 5 images" in third
    config.schedule.warmup_epochs, config.schedule.name = 0.5, "cosine"
    [unused] = warnings(num_devices=1)
    assert "milestone_epochs and milestone_steps have no effect on schedule.name='cosine'" in unused
    config.schedule.milestone_epochs = ()
    config.sync_batch_norm = True
    assert warnings(num_devices=2) == []
    config.optimizer.name, config.optimizer.momentum = "adamw", 0.8
    assert warnings(2) == [
        "optimizer.momentum has no effect on optimizer.name='adamw', which has b1"
    ]
    config.optimizer.name, config.optimizer.b2 = "sgd", 0.95
    assert warnings(2) == ["optimizer.b1, b2 and eps have no effect on optimizer.name='sgd'"]
    config.optimizer.b2, config.stop.patience = default_config().optimizer.b2, 2
    assert warnings(2) == []
    config.eval.every_epochs = 0.0
    intervals = make_intervals(config, EpochSampler(100, 10, seed=0))
    assert warnings(2) == [
        "stop.patience has no effect, since only the end is evaluated (eval.every_epochs=0)"
    ]


def test_nothing_is_claimed_about_own_parts():
    config = default_config()
    config.update(num_epochs=3.0, batch_size=10, bce_target_threshold=0.2, loss="own")
    config.schedule.update(name="own", milestone_epochs=(1.0,), warmup_epochs=0.0)
    config.optimizer.update(name="own", b1=0.8)
    intervals = make_intervals(config, EpochSampler(100, 10, seed=0))
    sizes = make_batch_sizes(config, 1, 100)
    assert len(run_summary.config_warnings(config, intervals, sizes)) == 3
    register_loss("own", make_cross_entropy)
    register_schedule("own", lambda schedule, span: None)
    register_optimizer("own", lambda optimizer, schedule: None)
    assert run_summary.config_warnings(config, intervals, sizes) == []


def test_keys_that_an_own_loss_or_task_ignores_are_warnings():
    """One loss smooths labels, the other two of mixed images only; the task uses no key."""
    config = default_config()
    config.update(label_smoothing=0.1, bce_target_threshold=0.2, loss="smooth")
    register_loss("smooth", make_cross_entropy)
    register_loss(
        "mixed",
        lambda config: (
            lambda logits, targets: cross_entropy(
                logits, targets.label, 0.0 if targets.other is None else config.label_smoothing
            )
        ),
    )
    expected = ["bce_target_threshold=0.2 has no effect on loss='smooth'"]
    assert own_loss_warnings(config, 5) == expected
    config.update(loss="mixed", bce_target_threshold=0.0)
    assert own_loss_warnings(config, 5) == []

    def loss(logits, targets):
        return mixed_cross_entropy(logits, targets)

    register_task("own", lambda config: Task(loss, loss, {"top1": top1}))
    config.task, config.eval.metrics = "own", ("top1", "top5")
    assert own_loss_warnings(config, 5) == [
        "label_smoothing=0.1 has no effect on task='own'",
        "loss='mixed' has no effect on task='own'",
        "eval.metrics=top5 has no effect on task='own'",
    ]
    config.update(task="classification", loss="cross_entropy")
    assert own_loss_warnings(config, 5) == []


def test_absurd_evaluation_loss_is_a_warning(capsys):
    with Console(10) as console:
        run_summary.check_evaluation_loss(console, 2.5, chance=2.3)
        assert capsys.readouterr() == ("", "")
        run_summary.check_evaluation_loss(console, 13e6, chance=2.3)
        run_summary.check_evaluation_loss(console, float("nan"), chance=2.3)
    absurd, nan = capsys.readouterr().err.splitlines()
    assert "1.3e+07 is far above 2.3," in absurd and "loss nan" in nan
