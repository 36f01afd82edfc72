"""The stop flag that each step takes and returns."""

import jax
import numpy as np
import pytest

from train.engine.devices import Pmap, ShardMap
from train.engine.preemption import StopAgreement, with_stop_flag
from train.runtime import distributed
from train.runtime.signals import StopRequest


@pytest.mark.parametrize("kind", [Pmap, ShardMap])
def test_steps_return_whether_any_device_has_the_flag(kind):
    devices = kind(jax.local_devices()[:4])
    state = devices.replicate({"sum": np.float32(3)})
    train = devices.train(with_stop_flag(lambda state, data, batch: (state, {"loss": batch["x"]})))
    evaluate = devices.evaluate(with_stop_flag(lambda state, data, batch: {"loss": state["sum"]}))
    batch = devices.split({"x": np.arange(4, dtype=np.float32)})
    for flags in ([0, 0, 0, 0], [0, 0, 1, 0], [1, 1, 1, 1]):
        stop = devices.split({"stop": np.array(flags, bool)})["stop"]
        sums = devices.fetch(evaluate(state, {}, batch, stop))
        assert (sums["loss"], sums["stop"]) == (3, max(flags))
        state, metrics = train(state, {}, batch, stop)
        assert devices.fetch(metrics)["stop"] == max(flags) and devices.fetch(state)["sum"] == 3


def test_steps_without_a_flag_are_unchanged():
    result = {"loss": 1}
    assert with_stop_flag(lambda *_: result)(None, None, None, None) == {"loss": 1}


def test_a_single_process_stops_by_its_own_request():
    own = StopRequest()
    agreement = StopAgreement(own, Pmap())
    assert agreement.flag() is None
    assert not agreement.at_start() and not agreement.after(None)
    own.signal = own.SIGNALS[0]
    assert agreement.at_start() and agreement.after(None) and agreement.name == "SIGTERM"


def test_several_processes_stop_by_the_flag_that_a_step_returned(monkeypatch):
    """Never by the own request: the others have not seen it yet."""
    monkeypatch.setattr(distributed, "process_count", lambda: 2)
    devices = Pmap(jax.local_devices()[:2])
    own = StopRequest()
    agreement = StopAgreement(own, devices)
    assert not np.asarray(agreement.flag()).any()
    own.signal = own.SIGNALS[1]
    assert np.asarray(agreement.flag()).all()

    def returned(value):
        return {"stop": devices.replicate(np.int32(value))}

    assert (
        not agreement.after(None) and not agreement.after({}) and not agreement.after(returned(0))
    )
    assert agreement.after(returned(1))
    assert agreement.after(None) and agreement.after(returned(0))  # and stays so
    assert StopAgreement(StopRequest(), devices).name == "a signal to another process"
