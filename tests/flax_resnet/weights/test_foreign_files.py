"""Test that files of many libraries and scripts load with the logits of the network in them."""

import copy

import flax.serialization
import numpy as np
import pytest

from flax_resnet import ResNet, init_variables
from flax_resnet.weights import WeightsError, read_weights
from tests.flax_resnet.peers import assert_close, assert_same, jit, peer, random_images
from tests.flax_resnet.torch_nets import evaluated, hugging_face_net, randomize
from tests.flax_resnet.weights import foreign_files as files

pytestmark = pytest.mark.peer

MODEL = ResNet((1, 1, 1, 1), block="residual", num_classes=7)
apply = jit(MODEL.apply)


@pytest.fixture(scope="module")
def nets():
    """Two random networks of torchvision."""
    resnet = peer("torchvision.models").resnet
    make = (resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], 7) for _ in range(2))
    return [randomize(net, seed) for seed, net in enumerate(make)]


@pytest.fixture(scope="module")
def hugging_face_nets():
    return [randomize(hugging_face_net(MODEL), seed) for seed in range(2)]


@pytest.fixture(scope="module")
def logits(nets, hugging_face_nets):
    """The logits of each network."""
    return {net: evaluated(net, random_images()) for net in (*nets, *hugging_face_nets)}


@pytest.fixture(scope="module")
def initial():
    return init_variables(MODEL, 0, (64, 64, 3))


# Per row: the head, the network that is read (the other one is a moving average or the like), and
# a part of the report.
LOADED, NEW = "loaded", "new"
ROWS = {
    files.imagenet_example: (LOADED, 0, "ignored arch, best_acc1, epoch, optimizer, scheduler"),
    files.tutorial_with_generator: (LOADED, 0, "ignored epoch, loss, rng_state"),
    files.torchvision_reference: (LOADED, 0, "not 'model_ema': add #ema to the file's name"),
    files.torchvision_reference_ema: (LOADED, 1, "read 'model_ema', not 'model'"),
    files.one_network_under_two_keys: (LOADED, 0, "62 of 62 tensors matched, 0 new, 0 left"),
    files.compiled: (LOADED, 0, "62 of 62 tensors matched, 0 new, 0 left"),
    files.sharded: (LOADED, 0, "62 of 62 tensors matched, 0 new, 0 left"),
    files.sequential_children: (NEW, 0, "new, not in the file: params/head/bias"),
    files.sequential_with_head: (LOADED, 0, "the file's head is '2'"),
    files.head_with_dropout: (LOADED, 0, "the file's head is 'fc.1'"),
    files.head_of_two_layers: (
        NEW,
        0,
        "fc.0.weight, fc.0.bias, fc.1.weight and 9 more",
    ),
    files.classifier_beside_backbone: (LOADED, 0, "the file's head is 'classifier'"),
    files.timm_checkpoint: (LOADED, 0, "read 'state_dict' (the trained weights), not 'state_dict_"),
    files.timm_ema: (LOADED, 1, "read 'state_dict_ema', not 'state_dict'"),
    files.lightning_checkpoint: (LOADED, 0, "read 'state_dict'"),
    files.lightning_with_namespaces: (LOADED, 0, "hyper_parameters"),
    files.lightning_with_omegaconf: (LOADED, 0, "hyper_parameters"),
    files.lightning_average: (LOADED, 0, "read 'state_dict.model' (Lightning's convention)"),
    files.mmpretrain: (LOADED, 0, "the file's head is 'head.fc'"),
    files.moco: (NEW, 0, "(MoCo's encoder of queries), not 'state_dict.encoder_k': add #encoder_k"),
    files.moco_of_2020: (NEW, 0, "w.pth (PyTorch before 1.6, torchvision names): 60 of 62 tensors"),
    files.moco_keys: (NEW, 0, "read 'state_dict.encoder_k', not 'state_dict.encoder_q'"),
    files.moco_3: (NEW, 0, "its last layer is a projection of self-supervised training: not load"),
    files.dino: (NEW, 0, "read 'teacher.backbone' (DINO's convention), not 'student.backbone'"),
    files.dino_student: (NEW, 0, "read 'student.backbone', not 'teacher.backbone': add #teacher"),
    files.byol: (
        NEW,
        0,
        "read 'online_network_state_dict.encoder' (BYOL's convention), not",
    ),
    files.byol_pytorch: (NEW, 0, "read 'online_encoder.net' (BYOL's convention)"),
    files.simsiam: (NEW, 0, "left, not in the network: "),
    files.swav: (NEW, 0, "not in the network: projection_head.0.weight"),
    files.safetensors_file: (LOADED, 0, "the file's head is 'head'"),
    files.flax_model: (LOADED, 0, "(Flax msgpack, huggingface flax names): 62 of 62 tensors"),
    files.hugging_face: (LOADED, 0, "(safetensors, huggingface names): 62 of 62 tensors"),
}


@pytest.mark.parametrize("write", ROWS, ids=lambda write: write.__name__)
def test_files_give_the_logits_of_their_network(
    write, nets, hugging_face_nets, logits, initial, tmp_path
):
    head, number, message = ROWS[write]
    made = hugging_face_nets if write in (files.flax_model, files.hugging_face) else nets
    source = write(*copy.deepcopy(made), tmp_path)
    variables, report = read_weights(MODEL, source)
    assert message in str(report)
    if head == NEW:
        assert_same(variables["params"]["head"], initial["params"]["head"])
        state = made[number].state_dict()
        for ours, theirs in (("kernel", "fc.weight"), ("bias", "fc.bias")):
            variables["params"]["head"][ours] = state[theirs].numpy().T
    assert_close(apply(variables, random_images()), logits[made[number]], "logits")


AMBIGUOUS = {
    "two networks": (["a", "b"], "has several networks: 'a', 'b'; name one as FILE#PART"),
    "distillation": (["student", "teacher"], r"several networks: 'student', 'teacher'"),
    "two averages": (["ema_1", "ema_2"], r"for example .*w\.pth#ema_1"),
}


@pytest.mark.parametrize(("keys", "message"), AMBIGUOUS.values(), ids=AMBIGUOUS)
@pytest.mark.parametrize("nested", [True, False])
def test_one_of_several_networks_is_chosen_only_by_convention(
    keys, message, nested, nets, logits, tmp_path
):
    states = {key: net.state_dict() for key, net in zip(keys, nets, strict=True)}
    if not nested:
        states = {f"{key}.{name}": t for key, state in states.items() for name, t in state.items()}
    path = files.saved(states, tmp_path)
    with pytest.raises(WeightsError, match=message):
        read_weights(MODEL, path)
    with pytest.raises(WeightsError, match=rf"has no part 'c'; it has '{keys[0]}', '{keys[1]}'"):
        read_weights(MODEL, f"{path}#c")
    variables, report = read_weights(MODEL, f"{path}#{keys[1]}")
    assert f"read '{keys[1]}', not '{keys[0]}'" in str(report)
    assert_close(apply(variables, random_images()), logits[nets[1]], "logits")


def test_existing_files_with_a_number_sign_are_read(nets, logits, tmp_path):
    path = files.saved(nets[0].state_dict(), tmp_path)
    path.rename(tmp_path / "w#1")
    variables, report = read_weights(MODEL, tmp_path / "w#1")
    assert report.complete
    assert_close(apply(variables, random_images()), logits[nets[0]], "logits")


def test_a_head_with_normalization_is_not_loaded_in_part(nets, tmp_path):
    torch = peer("torch")
    net = copy.deepcopy(nets[0])
    net.fc = torch.nn.Sequential(torch.nn.BatchNorm1d(512), net.fc)
    _, report = read_weights(MODEL, files.saved(net.state_dict(), tmp_path))
    assert report.missing == ("params/head/bias", "params/head/kernel")
    assert {"fc.0.running_mean", "fc.1.weight"} <= set(report.skipped)


def test_tensors_of_another_part_of_the_model_are_not_taken_for_the_network(nets, tmp_path):
    torch = peer("torch")
    decoder = {"decoder.conv1.weight": torch.zeros(3), "conv1.weight": torch.zeros(4)}
    state = files.prefixed("encoder.", nets[0].state_dict()) | decoder
    variables, report = read_weights(MODEL, files.saved(state, tmp_path))
    assert set(report.skipped) == set(decoder) and not report.missing
    np.testing.assert_array_equal(
        variables["params"]["stem_norm"]["bias"], nets[0].bn1.bias.detach()
    )


def test_names_that_are_one_without_wrappers_are_an_error(nets, tmp_path):
    state = nets[0].state_dict()
    path = files.saved(state | files.prefixed("module.", state), tmp_path)
    with pytest.raises(WeightsError, match=r"has both conv1\.weight and module\.conv1\.weight"):
        read_weights(MODEL, path)


def test_bottlenecks_of_flax_models_are_read_with_their_numbers(tmp_path):
    model = ResNet((1, 2), width=8, num_classes=3)
    net = randomize(hugging_face_net(model))
    tree = files.flax_tree(net, convolutions="layer.")
    (tmp_path / "w.msgpack").write_bytes(flax.serialization.to_bytes(tree))
    variables, report = read_weights(model, tmp_path / "w.msgpack")
    assert report.complete and report.layout == "huggingface flax"
    net.save_pretrained(tmp_path)
    assert_same(variables, read_weights(model, tmp_path)[0])
    other = model.clone(stride_conv="1x1")
    assert "stride_conv='3x3'" in str(read_weights(other, tmp_path / "w.msgpack")[1])
