"""The yardstick in PyTorch is the network of the paper: it meets the golden numbers."""

import importlib.util
import pathlib
import zlib

import numpy as np
import pytest

torch = pytest.importorskip(
    "torch", reason="the yardstick of benchmarks/ needs the extra `torch`"
)

HERE = pathlib.Path(__file__).resolve().parent
RESOLUTIONS = (224, 192, 160, 128, 96)


def _load_benchmark(name):
    path = HERE.parent / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


torch_rsnet = _load_benchmark("torch_rsnet")


def _golden(name):
    path = HERE.parents[1] / "shared" / "golden" / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"the golden numbers ../shared/golden/{path.name} are not here")
    return np.load(path)


def _reference_key(key):
    """The name that the reference gives to a tensor of RSResNet18."""
    if key == "alpha":
        return key
    owner, _, leaf = key.rpartition(".")
    parts = owner.split(".")
    if parts[0] == "head":
        return f"fc.module.{leaf}"
    prefix, number = "", 1
    if parts[0] == "blocks":
        block = int(parts[1])
        prefix = f"layer{block // 2 + 1}.{block % 2}."
        number = 2 if parts[2] == "second" else 1
        parts = parts[2:]
    conv, norm = f"{prefix}conv{number}.module", f"{prefix}bn{number}"
    if parts[0] == "shortcut":
        conv, norm = f"{prefix}downsample.0.module", f"{prefix}downsample.1"
    if parts[1] == "conv":
        return f"{conv}.{leaf}"
    return f"{norm}.bn_RESOLUTION{parts[2]}.{leaf}"


def _reference_keys(model):
    rows = {f"RESOLUTION{r}": str(i) for i, r in enumerate(model.resolutions)}
    keys = {}
    for key in model.state_dict():
        reference = _reference_key(key)
        for name, row in rows.items():
            reference = reference.replace(f"{name}.", f"{row}.")
        keys[key] = reference
    return keys


def _deterministic_tensor(key, shape):
    draw = np.random.default_rng(zlib.crc32(key.encode()))
    if key == "alpha":
        value = np.ones(shape)
    elif key.startswith("fc"):
        scale = (1 / shape[1]) ** 0.5 if len(shape) == 2 else 0.1
        value = draw.standard_normal(shape) * scale
    elif len(shape) == 4:
        value = draw.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
    elif key.endswith("running_var"):
        value = draw.uniform(0.5, 1.5, shape)
    elif key.endswith("weight"):
        value = draw.uniform(0.5, 1.0, shape)
    else:  # the bias of a normalization or its running mean
        value = draw.standard_normal(shape) * 0.1
    return torch.from_numpy(np.asarray(value, np.float32))


def _deterministic_model(resolutions, num_classes):
    model = torch_rsnet.build(resolutions, num_classes)
    keys = _reference_keys(model)
    state = {
        key: value
        if key.endswith("num_batches_tracked")
        else _deterministic_tensor(keys[key], tuple(value.shape))
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model


def _image(side, count=2, seed=None):
    draw = np.random.default_rng(side if seed is None else seed)
    cells = -(-side // 16)
    low = draw.standard_normal((count, 3, cells, cells))
    big = low.repeat(16, axis=2).repeat(16, axis=3)[:, :, :side, :side]
    noise = draw.standard_normal((count, 3, side, side))
    return torch.from_numpy((big + 0.25 * noise).astype(np.float32))


def test_logits_of_the_torch_network_match_the_reference():
    golden = _golden("rsnet_logits_resnet18")
    model = _deterministic_model(RESOLUTIONS, 1000).eval()
    for resolution in RESOLUTIONS:
        with torch.inference_mode():
            logits = model(_image(resolution), resolution).numpy()
        np.testing.assert_allclose(logits, golden[f"logits_{resolution}"], atol=1e-4)


@pytest.mark.parametrize("weights", ["ones", "rand"])
def test_the_torch_loss_and_its_gradients_match_the_reference(weights):
    golden = _golden("mred_loss")
    logits = torch.tensor(golden["logits"], dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor(
        golden[f"alpha_{weights}"], dtype=torch.float64, requires_grad=True
    )
    labels = torch.tensor(golden["labels"], dtype=torch.int64)
    parts = torch_rsnet.distillation_loss(list(logits), labels, alpha)
    parts["loss"].backward()
    prefix = f"{weights}_ens_topdown"
    expected = {
        "total": parts["loss"].item(),
        "ens": parts["ensemble"].item(),
        "dlogits": logits.grad.numpy(),
        "dalpha": alpha.grad.numpy(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(
            value, golden[f"{prefix}_{name}"], atol=1e-6, err_msg=name
        )


def test_three_torch_steps_match_the_reference():
    golden = _golden("rsnet_train3_resnet18")
    resolutions = (96, 80, 64)
    model = _deterministic_model(resolutions, 10)
    optimizer = torch_rsnet.sgd(model, learning_rate=1e-3, weight_decay=1e-2)
    keys = _reference_keys(model)
    for step in range(3):
        images = {r: _image(r, 6, seed=1000 * step + r) for r in resolutions}
        labels = np.random.default_rng(77 + step).integers(0, 10, 6)
        loss = torch_rsnet.train_step(
            model, optimizer, images, torch.from_numpy(labels)
        )
        np.testing.assert_allclose(loss, golden[f"s{step}_loss"], rtol=1e-5)
        compared = 0
        for key, value in model.state_dict().items():
            name = f"s{step}|{keys[key]}"
            if name in golden:
                compared += 1
                # Float32 against float64; the reference itself is off by 7e-5.
                np.testing.assert_allclose(
                    value.numpy(), golden[name], rtol=1e-3, atol=2e-5, err_msg=name
                )
        assert compared == sum(name.startswith(f"s{step}|") for name in golden.files)
