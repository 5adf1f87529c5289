"""Weights in and out of the reference's layout; strict both ways."""

import numpy as np
import pytest

import rs_keras
from rs_keras.checkpoints import torch_import


@pytest.fixture(scope="module")
def model():
    return rs_keras.mobilenet_v2((64, 32), 5, width=0.125)


@pytest.fixture
def state(model):
    """Random weights of the right shapes."""
    generator = np.random.default_rng(0)
    return {
        key: generator.standard_normal(value.shape).astype(np.float32)
        for key, value in torch_import.state_dict(model).items()
    }


def test_state_dict_is_the_inverse_of_load_state_dict(model, state):
    torch_import.load_state_dict(model, state)
    again = torch_import.state_dict(model)
    assert list(again) == list(state)
    for key, value in state.items():
        np.testing.assert_array_equal(again[key], value, err_msg=key)


def test_arrays_land_in_the_layouts_and_rows_of_keras(model, state):
    torch_import.load_state_dict(model, state)
    stem = model.blocks[0]
    key = "features.0.0.module.weight"
    np.testing.assert_array_equal(
        stem.conv.kernel.numpy(), state[key].transpose(2, 3, 1, 0)
    )
    for row in (0, 1):  # bn_0 is the largest resolution
        prefix = f"features.0.1.bn_{row}"
        for ours, theirs in (
            ("gamma", "weight"),
            ("beta", "bias"),
            ("moving_mean", "running_mean"),
            ("moving_variance", "running_var"),
        ):
            np.testing.assert_array_equal(
                getattr(stem.norm, ours).numpy()[row], state[f"{prefix}.{theirs}"]
            )
    depthwise = model.blocks[1].branch[0].conv  # expansion 1: no convolution before it
    np.testing.assert_array_equal(
        depthwise.kernel.numpy()[:, :, :, 0],
        state["features.1.conv.0.module.weight"][:, 0].transpose(1, 2, 0),
    )
    np.testing.assert_array_equal(
        model.head.kernel.numpy(), state["classifier.module.weight"].T
    )
    np.testing.assert_array_equal(model.alpha.numpy(), state["alpha"])


def test_counters_are_ignored_and_alpha_may_be_missing(model, state):
    torch_import.load_state_dict(model, state)
    before = model.alpha.numpy()
    del state["alpha"]
    state["features.0.1.bn_0.num_batches_tracked"] = np.int64(7)
    torch_import.load_state_dict(model, {k: v * 2 for k, v in state.items()})
    np.testing.assert_array_equal(model.alpha.numpy(), before)
    doubled = torch_import.state_dict(model)["classifier.module.bias"]
    np.testing.assert_array_equal(doubled, 2 * state["classifier.module.bias"])


def test_torch_tensors_are_taken_as_they_are(model, state):
    torch = pytest.importorskip("torch", reason="reads PyTorch's tensors")
    tensors = {key: torch.tensor(value) for key, value in state.items()}
    torch_import.load_state_dict(model, tensors)
    got = torch_import.state_dict(model)["conv.0.module.weight"]
    np.testing.assert_array_equal(got, state["conv.0.module.weight"])


def _without(state):
    return {k: v for k, v in state.items() if not k.startswith("classifier")}


REFUSED = {
    "missing": (
        _without,
        "2 missing keys: classifier.module.bias, classifier.module.weight",
    ),
    "unexpected": (
        lambda s: {**s, "module.alpha": s["alpha"]},
        "1 unexpected keys: module.alpha",
    ),
    "shape": (
        lambda s: {**s, "classifier.module.bias": np.zeros(6)},
        r"1 mis-shaped keys: classifier.module.bias is \(6,\), not \(5,\)",
    ),
    "rank": (
        lambda s: {**s, "alpha": np.zeros((2, 1))},
        r"1 mis-shaped keys: alpha is \(2, 1\), not \(2,\)",
    ),
    "layout": (
        lambda s: {**s, "features.0.0.module.weight": np.zeros((3, 3, 3, 8))},
        r"features.0.0.module.weight is \(3, 3, 3, 8\), not \(8, 3, 3, 3\)",
    ),
    "many": (lambda s: {"alpha": s["alpha"]}, r"missing keys: .* and \d+ more$"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_state_dict_that_does_not_fit_is_refused_and_changes_nothing(
    model, state, case
):
    change, message = REFUSED[case]
    torch_import.load_state_dict(model, state)
    before = model.get_weights()
    wrong = change({key: value + 1 for key, value in state.items()})
    with pytest.raises(
        ValueError,
        match="must hold exactly the weights of the model. Received: .*" + message,
    ):
        torch_import.load_state_dict(model, wrong)
    for value, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, expected)
