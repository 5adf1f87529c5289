"""Checkpoints of others as files, through the command lines."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy

import rs_keras
from rs_keras.checkpoints import keras_file
from rs_keras.checkpoints import torch_file
from rs_keras.checkpoints import torch_import
from tests import commands
from tests import golden
from tests.checkpoints import torch_networks

IMPORT, EXPORT = "tools.import_torch_checkpoint", "tools.export_torch_checkpoint"
SIDES = "--resolutions=64,48"
NARROW = ("--model=resnet18", "--width=0.125", SIDES)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A .safetensors file of a ResNet-18, 5 classes, in torchvision's layout."""
    path = tmp_path_factory.mktemp("plain") / "resnet18.safetensors"
    state = torch_networks.draw(torch_networks.resnet_shapes(18, 5))
    arrays = {key: np.asarray(value) for key, value in state.items()}
    safetensors.numpy.save_file(arrays, path)
    return path


def scaled(images):
    """uint8 NHWC as torchvision's networks take them: NCHW, mean and deviation."""
    import torch

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    x = (images / 255 - np.array(mean)) / np.array(std)
    return torch.tensor(x.transpose(0, 3, 1, 2).astype("float32"))


@pytest.mark.parametrize(
    ("model", "layout"),
    [
        ("resnet18", "torchvision"),
        ("resnet50", "torchvision"),
        ("mobilenet_v2", "torchvision"),
        ("mobilenet_v2", "timm"),
    ],
)
def test_plain_networks_compute_what_pytorch_does(model, layout, batch, tmp_path):
    torch = pytest.importorskip("torch", reason="computes with PyTorch")
    images, _ = batch(n=2, side=64)
    if model == "mobilenet_v2":
        timm = layout == "timm"
        state = torch_networks.draw(torch_networks.mobilenet_shapes(5, timm))
        tensors = {key: torch.tensor(value) for key, value in state.items()}
        expected = torch_networks.mobilenet_logits(tensors, scaled(images), timm)
    else:
        depth = int(model.removeprefix("resnet"))
        state = torch_networks.draw(torch_networks.resnet_shapes(depth, 5, 64))
        tensors = {key: torch.tensor(value) for key, value in state.items()}
        expected = torch_networks.resnet_logits(tensors, scaled(images), depth)
    path, output = tmp_path / "net.pth", tmp_path / "net.keras"
    torch.save({"model": tensors, "epoch": 3}, path)
    printed = commands.succeeds(
        IMPORT, f"--checkpoint={path}", f"--model={model}", SIDES, f"--output={output}"
    )
    assert "torchvision or timm" in printed and "5 classes" in printed
    found = keras_file.load(output)
    for resolution in (64, 48):  # every row is the one that is there
        logits = np.asarray(found(images, resolution=resolution))
        # Sums of hundreds of products in another order: 1e-4 of the largest.
        limit = 1e-4 * np.abs(expected.numpy()).max()
        np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=limit)


def test_official_checkpoints_give_the_golden_logits(tmp_path):
    torch = pytest.importorskip("torch", reason="writes PyTorch's files")
    golden.require("rsnet_logits_resnet18.npz")
    shapes = {key: shape for key, (shape, *_) in golden.keys("resnet18").items()}
    state = golden.weights("resnet18", shapes) | {"alpha": np.arange(5.0, dtype="f4")}
    tensors = {f"module.{key}": torch.tensor(value) for key, value in state.items()}
    tensors["module.bn1.bn_0.num_batches_tracked"] = torch.tensor(9)
    path, output = tmp_path / "model_best.pth", tmp_path / "net.keras"
    torch.save({"state_dict": tensors, "best": 0.7, "arch": "parallel_resnet18"}, path)
    commands.succeeds(IMPORT, f"--checkpoint={path}", f"--output={output}")
    model = keras_file.load(output)
    logits = np.asarray(model(golden.image(96), resolution=96))
    expected = golden.arrays("rsnet_logits_resnet18.npz")["logits_96"]
    # As in test_official_networks: float32 against float32 in another order.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(model.alpha, state["alpha"])
    # ... and back, bit for bit.
    back = tmp_path / "back.pth"
    commands.succeeds(EXPORT, f"--model={output}", f"--output={back}")
    again = torch.load(back, weights_only=True)
    assert set(again) == set(state)
    for key, value in state.items():
        assert again[key].numpy().tobytes() == value.tobytes(), key


def test_safetensors_need_no_pytorch_and_come_back(plain, finished, tmp_path):
    output = tmp_path / "net.keras"
    commands.succeeds(IMPORT, f"--checkpoint={plain}", *NARROW, f"--output={output}")
    model = keras_file.load(output)
    assert model.scaling == "imagenet" and model.resolutions == (64, 48)
    state = torch_file.read(plain)
    for row in (0, 1):
        ours = torch_import.state_dict(model)[f"layer1.0.bn1.bn_{row}.running_var"]
        np.testing.assert_array_equal(ours, state["layer1.0.bn1.running_var"])
    back = tmp_path / "run.safetensors"
    commands.succeeds(EXPORT, f"--workdir={finished}", f"--output={back}")
    run = torch_import.state_dict(keras_file.load(finished))
    warned = commands.run(EXPORT, f"--model={output}", f"--output={tmp_path / 'b.pt'}")
    assert warned.returncode in (0, 2)  # without PyTorch it says so
    if warned.returncode == 0:
        assert "scales images by imagenet" in warned.stderr
    for key, value in safetensors.numpy.load_file(back).items():
        np.testing.assert_array_equal(value, run.pop(key))
    assert not run


def test_a_run_starts_from_a_checkpoint_of_another_number_of_classes(
    plain, photos, tmp_path
):
    output = tmp_path / "net.keras"
    flags = (f"--checkpoint={plain}", *NARROW, f"--output={output}")
    commands.refuses("needs --reset_head", IMPORT, *flags, "--num_classes=9")
    commands.succeeds(IMPORT, *flags, "--num_classes=9", "--reset_head")
    assert keras_file.load(output).num_classes == 9
    train = ("--width=0.125", f"--dataset=folder:{photos}", "--resolutions=48,32")
    train += ("--batch_size=8", "--epochs=1", f"--init_from={output}")
    train += ("--learning_rate=0.001", f"--workdir={tmp_path / 'run'}")
    commands.refuses("--scaling=imagenet, for resnet18", "rs_keras.train", *train)
    printed = commands.succeeds("rs_keras.train", *train, "--scaling=imagenet")
    assert "the head was reset: it has 3 classes here, 9 there" in printed
    commands.refuses("--output exists", IMPORT, *flags)
    commands.succeeds(IMPORT, *flags, "--overwrite")


@pytest.fixture
def refused(tmp_path):
    """A function that imports some bytes as a file, and is refused."""

    def check(words, data, name="bad.pth", *flags):
        path, output = tmp_path / name, tmp_path / "net.keras"
        if data is not None:
            path.write_bytes(data)
        flags = (f"--checkpoint={path}", f"--output={output}", *flags)
        commands.refuses(words, IMPORT, *flags)
        assert not output.exists()

    return check


class Executes:
    """What would be executed if a pickle were trusted."""

    def __reduce__(self):
        return (print, ("EXECUTED",))


def test_pickles_that_are_no_state_dict_are_refused(refused, capfd):
    torch = pytest.importorskip("torch", reason="reads PyTorch's files")
    sparse = {"a": torch.eye(3).to_sparse()}
    for value in (sparse, Executes(), {"state_dict": Executes()}, [1, 2], {"a": 3}, {}):
        file = io.BytesIO()
        torch.save(value, file)
        refused("must hold a state dict", file.getvalue())
        refused("must hold a state dict", pickle.dumps(value))
    assert "EXECUTED" not in capfd.readouterr().out
    file = io.BytesIO()
    torch.save({"a": torch.zeros(1000)}, file)
    refused("must hold a state dict", file.getvalue()[:900])
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    refused("unpack to at most 20 times its size", bomb.getvalue())


def test_prefixes_of_wrappers_are_taken_off_whatever_their_order(tmp_path):
    for prefix in ("module.", "_orig_mod.module.", "module._orig_mod."):
        arrays = {f"{prefix}fc.{name}": np.ones(2, "f4") for name in ("weight", "bias")}
        safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors")
        found = torch_file.read(tmp_path / "a.safetensors")
        assert set(found) == {"fc.weight", "fc.bias"}


def test_files_and_keys_that_do_not_fit_are_named(refused, plain):
    refused("one of .pth, .pt, .safetensors", b"", "bad.h5")
    refused("file with a state dict is needed", None)
    refused("must hold a state dict", b"no such thing", "bad.safetensors")
    state = torch_file.read(plain)

    def packed(**changes):
        found = {k: v for k, v in {**state, **changes}.items() if v is not None}
        return safetensors.numpy.save(found)

    name, kernel = "bad.safetensors", {"layer1.0.conv1.weight": np.zeros((8, 8, 5, 5))}
    refused(
        "1 missing keys: conv1.weight", packed(**{"conv1.weight": None}), name, *NARROW
    )
    complex_kernel = {"conv1.weight": np.zeros((8, 3, 7, 7), "complex64")}
    refused("real numbers", packed(**complex_kernel), name, *NARROW)
    refused("1 unexpected keys: more", packed(more=np.zeros(3)), name, *NARROW)
    refused("layer1.0.conv1.weight is (8, 8, 5, 5)", packed(**kernel), name, *NARROW)
    headless = packed(**{"fc.weight": None, "fc.bias": None})
    refused("must have a head", headless, name, *NARROW)
    refused("missing keys", plain.read_bytes(), name, "--model=mobilenet_v2", SIDES)
    official = {"bn1.bn_0.weight": np.zeros(8), "fc.module.weight": np.zeros((5, 8))}
    official = safetensors.numpy.save(official)
    refused("must name the 1 resolutions", official, name, *NARROW)


def test_networks_without_a_counterpart_are_not_exported(tmp_path):
    import keras

    from tests.models import networks

    keras.utils.set_random_seed(0)
    model = rs_keras.make_switchable(networks.network(), (64, 32))
    with pytest.raises(ValueError, match="made switchable"):
        torch_import.state_dict(model)
    flags = (f"--output={tmp_path / 'a.pth'}",)
    commands.refuses("One of --workdir and --model", EXPORT, *flags)
    commands.refuses("finished run", EXPORT, *flags, f"--workdir={tmp_path}")
