"""The three published networks: keys, shapes and logits against independent sources."""

import numpy as np
import pytest

import rs_keras
from rs_keras.checkpoints import torch_import
from tests import golden

FIVE = (224, 192, 160, 128, 96)
NETWORKS = {
    "resnet18": rs_keras.resnet18,
    "resnet50": rs_keras.resnet50,
    "mobilenetv2": rs_keras.mobilenet_v2,
}
# First logits of sample 0, as printed in golden/README.md.
README_LOGITS = {
    224: [2.16137, -1.60177, 3.49589, 1.14494],
    96: [0.0733, 2.22478, 2.95047, 1.67509],
}


@pytest.fixture(scope="module", params=NETWORKS)
def official(request):
    """(name, network with the golden weights), five resolutions, 1000 classes."""
    return request.param, _network(request.param)


def _network(name):
    model = NETWORKS[name](FIVE, 1000)
    shapes = {k: v.shape for k, v in torch_import.state_dict(model).items()}
    torch_import.load_state_dict(model, golden.weights(name, shapes))
    return model


def test_state_dict_has_the_keys_and_shapes_of_the_reference(official):
    name, model = official
    expected = {key: tuple(entry[0]) for key, entry in golden.keys(name).items()}
    state = torch_import.state_dict(model)
    assert tuple(state.pop("alpha").shape) == (5,)
    assert {key: value.shape for key, value in state.items()} == expected


@pytest.fixture(scope="module")
def resnet18():
    return _network("resnet18")


@pytest.mark.parametrize("resolution", FIVE)
def test_logits_of_resnet18_equal_the_official_network(resnet18, resolution):
    expected = golden.arrays("rsnet_logits_resnet18.npz")[f"logits_{resolution}"]
    logits = resnet18(golden.image(resolution), resolution=resolution).numpy()
    # The tolerance; float32 noise of the official network is 3e-6.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    if resolution in README_LOGITS:
        first = logits[0, :4]
        np.testing.assert_allclose(first, README_LOGITS[resolution], atol=1e-4)


def _reference_forward(torch, state, x, row, blocks, head):
    """The forward pass of section 1.1 in PyTorch, straight from a state dict.

    Args:
        blocks: [(shortcut?, [(convolution, norm, stride, groups, activation)], last
            activation)]; a shortcut of None adds nothing.
    """
    functional = torch.nn.functional
    weights = {k: torch.tensor(v) for k, v in state.items()}

    def layer(x, conv, norm, stride, groups, activation):
        kernel = weights[f"{conv}.module.weight"]
        x = functional.conv2d(
            x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups
        )
        p = f"{norm}.bn_{row}"
        x = functional.batch_norm(
            x,
            weights[f"{p}.running_mean"],
            weights[f"{p}.running_var"],
            weights[f"{p}.weight"],
            weights[f"{p}.bias"],
            eps=1e-5,
        )
        return activation(x) if activation else x

    for shortcut, layers, last in blocks:
        if layers == "maxpool":
            x = functional.max_pool2d(x, 3, 2, 1)
            continue
        y = x
        for arguments in layers:
            y = layer(y, *arguments)
        if shortcut == "identity":
            y = y + x
        elif shortcut is not None:
            y = y + layer(x, *shortcut)
        x = last(y) if last else y
    x = x.mean(dim=(2, 3))
    weight, bias = (weights[f"{head}.module.{p}"] for p in ("weight", "bias"))
    return functional.linear(x, weight, bias).numpy()


def _resnet_blocks(sizes, depth, relu):
    yield None, [("conv1", "bn1", 2, 1, relu)], None
    yield None, "maxpool", None
    for stage, size in enumerate(sizes, start=1):
        for index in range(size):
            name = f"layer{stage}.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            shortcut = "identity"
            if index == 0 and (stage > 1 or depth == 3):
                down = f"{name}.downsample"
                shortcut = (f"{down}.0", f"{down}.1", stride, 1, None)
            layers = [
                (f"{name}.conv1", f"{name}.bn1", 1, 1, relu),
                (f"{name}.conv2", f"{name}.bn2", stride, 1, relu),
                (f"{name}.conv3", f"{name}.bn3", 1, 1, None),
            ]
            if depth == 2:  # basic block, stride on the first
                layers = [
                    (f"{name}.conv1", f"{name}.bn1", stride, 1, relu),
                    (f"{name}.conv2", f"{name}.bn2", 1, 1, None),
                ]
            yield shortcut, layers, relu


def _mobilenet_blocks(relu6):
    yield None, [("features.0.0", "features.0.1", 2, 1, relu6)], None
    channels, position = 32, 0
    for t, c, n, s in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for index in range(n):
            position += 1
            name, stride = f"features.{position}.conv", s if index == 0 else 1
            hidden = channels * t
            layers = [] if t == 1 else [(f"{name}.0", f"{name}.1", 1, 1, relu6)]
            at = 0 if t == 1 else 3
            layers += [
                (f"{name}.{at}", f"{name}.{at + 1}", stride, hidden, relu6),
                (f"{name}.{at + 3}", f"{name}.{at + 4}", 1, 1, None),
            ]
            identity = stride == 1 and channels == c
            yield "identity" if identity else None, layers, None
            channels = c
    yield None, [("conv.0", "conv.1", 1, 1, relu6)], None


@pytest.mark.parametrize(("row", "resolution"), [(2, 96), (4, 64)])
def test_logits_equal_a_forward_pass_written_in_pytorch(official, row, resolution):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference here")
    # The golden logits of ResNet-50 and MobileNetV2 are kept aside.
    name, model = official
    functional = torch.nn.functional
    blocks, head = {
        "resnet18": (_resnet_blocks((2, 2, 2, 2), 2, functional.relu), "fc"),
        "resnet50": (_resnet_blocks((3, 4, 6, 3), 3, functional.relu), "fc"),
        "mobilenetv2": (_mobilenet_blocks(functional.relu6), "classifier"),
    }[name]
    x = golden.image(resolution)
    shapes = {k: v[0] for k, v in golden.keys(name).items()}
    expected = _reference_forward(
        torch,
        golden.weights(name, shapes),
        torch.tensor((x / 255).transpose(0, 3, 1, 2).copy()),
        row,
        blocks,
        head,
    )
    logits = model(x, resolution=FIVE[row])
    # As for the golden files; float32 noise of the official network is 9e-6.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
