"""What an installed rs_keras is: light to import, complete, and able to train."""

import configparser
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import rs_keras

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = (
    "quant",
    "pyproject.toml",
    "setup.cfg",
    "README.md",
    "LICENSE",
    "rs_keras",
    "configs",
)
# A recipe of minutes becomes one of seconds; tests/test_configs.py has it as it is.
SHORTENED = (
    *("--epochs=1", "--warmup_epochs=0", "--width=0.125"),
    *("--resolutions=40,32", "--batch_size=512"),
)


def _python(*arguments, cwd, path=None):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def _setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_importing_the_package_imports_neither_keras_nor_tensorflow():
    program = "import sys, rs_keras; print(*sorted(sys.modules), sep='\\n')"
    loaded = _python("-c", program, cwd=ROOT).splitlines()
    assert "rs_keras" in loaded
    assert {"keras", "tensorflow", "numpy", "jax", "torch"}.isdisjoint(loaded)


@pytest.mark.parametrize("name", rs_keras.__all__)
def test_every_public_name_resolves(name):
    assert callable(getattr(rs_keras, name))
    assert name in dir(rs_keras)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'resnet19'"):
        rs_keras.resnet19  # noqa: B018


def test_the_version_is_the_one_of_the_metadata():
    assert rs_keras.__version__ == _setup_cfg()["metadata"]["version"]


def test_every_room_is_in_the_list_of_packages():
    rooms = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("rs_keras", "quant")
        for path in (ROOT / top).rglob("__init__.py")
    }
    packages = set(_setup_cfg()["options"]["packages"].split())
    assert packages == rooms | {"rs_keras.configs"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the wheel has been installed, without its dependencies."""
    folder = tmp_path_factory.mktemp("package")
    # A copy, because setuptools builds beside the sources and keeps what it has built.
    sources = folder / "sources"
    sources.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, sources / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, sources / name)
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    wheels = folder / "wheels"
    _python(
        *(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index"),
        *("--wheel-dir", wheels, sources),
        cwd=folder,
    )
    (wheel,) = wheels.glob("rs_keras-*.whl")
    target = folder / "installed"
    _python(
        *(*pip, "install", "--no-deps", "--no-index", "--target", target, wheel),
        cwd=folder,
    )
    return target


def _files(root, pattern):
    return {path.relative_to(root).as_posix() for path in root.rglob(pattern)}


def test_the_wheel_holds_every_module_and_every_recipe(installed):
    package = installed / "rs_keras"
    assert _files(package, "*.py") == _files(ROOT / "rs_keras", "*.py")
    assert _files(package / "configs", "*.cfg") == _files(ROOT / "configs", "*.cfg")
    assert not (installed / "tests").exists()


def test_the_wheel_has_the_command_lines(installed):
    (entry_points,) = installed.glob("rs_keras-*.dist-info/entry_points.txt")
    parser = configparser.ConfigParser()
    parser.read(entry_points, encoding="utf-8")
    program = "import pkgutil, sys; print(callable(pkgutil.resolve_name(sys.argv[1])))"
    scripts = dict(parser["console_scripts"])
    assert set(scripts) == {"rs-keras-train", "rs-keras-evaluate", "rs-keras-predict"}
    for target in scripts.values():
        out = _python("-c", program, target, cwd=installed.parent, path=installed)
        assert out.splitlines()[-1] == "True"


def test_the_installed_package_trains_the_quickstart_recipe(installed, tmp_path):
    program = (
        "import importlib.resources, rs_keras; print(rs_keras.__file__);"
        "print(importlib.resources.files('rs_keras.configs') / 'quickstart.cfg')"
    )
    module, recipe = _python("-c", program, cwd=tmp_path, path=installed).splitlines()
    assert pathlib.Path(module).is_relative_to(installed)
    assert pathlib.Path(recipe).is_relative_to(installed)
    arguments = (f"--flagfile={recipe}", "--workdir=run", *SHORTENED)
    _python("-m", "rs_keras.train", *arguments, cwd=tmp_path, path=installed)
    # Exactly the workdir is written, and it is complete enough to be evaluated.
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    _python("-m", "rs_keras.evaluate", "--workdir=run", cwd=tmp_path, path=installed)
    assert (tmp_path / "run" / "model.keras").is_file()
    assert (tmp_path / "run" / "results.json").is_file()


@pytest.mark.parametrize(
    "first", ["import rs_keras.data.sources", "import rs_keras.resolutions", "pass"]
)
def test_classes_are_registered_however_keras_comes_to_be_imported(first):
    program = (
        f"import rs_keras; {first}; import keras;"
        "names = keras.saving.get_custom_objects();"
        "print(all('rs_keras>' + n in names for n in ('Classifier', 'SGD')))"
    )
    assert _python("-c", program, cwd=ROOT).splitlines()[-1] == "True"


def test_the_documented_path_to_checkpoints_needs_one_import():
    program = (
        "import rs_keras; print(rs_keras.checkpoints.lqnet_import.__name__);"
        "print(rs_keras.checkpoints.torch_import.__name__)"
    )
    out = _python("-c", program, cwd=ROOT)
    assert out.splitlines()[-1] == "rs_keras.checkpoints.torch_import"
