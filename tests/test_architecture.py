"""Imports point strictly down, and the layout of the sources keeps its rules.

The rules are those of the module map: nothing is imported here, sources are parsed.
"""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAXIMUM_LINES = 300
FORBIDDEN_NAMES = {"utils.py", "common.py", "helpers.py"}

# A module imports its own room and rooms of a strictly smaller rank. Rooms of one rank
# do not know each other. Every tool is a room by itself.
RANKS = {
    "rs_keras.train": 8,
    "rs_keras.run": 7,
    "rs_keras.evaluate": 7,
    "rs_keras.predict": 7,
    "tools": 7,
    "rs_keras.run_report": 6,
    "rs_keras.build": 5,
    "rs_keras.nonfinite": 5,
    "rs_keras.run_analysis": 5,
    "rs_keras.model_card": 5,
    "rs_keras.run_data": 4,
    "rs_keras.pictures": 2,
    "rs_keras.report": 3,
    "rs_keras.run_facts": 2,
    "rs_keras.evaluation": 4,
    "rs_keras.export": 4,
    "rs_keras.checkpoints": 4,
    "rs_keras.profiling": 4,
    "rs_keras.models": 3,
    "rs_keras.training": 2,
    "rs_keras.layers": 2,
    "rs_keras.losses": 1,
    "rs_keras.data": 1,
    "rs_keras.config": 1,
    "rs_keras.train_config": 0,
    "rs_keras.tool_flag_definitions": 0,
    "rs_keras.flag_definitions": -1,
    "rs_keras.workdir": 1,
    "rs_keras.latency_budget": 1,
    "rs_keras.progress": 0,
    "rs_keras.resolutions": 0,
    # Below all of it: quantization does not know what a resolution is.
    "quant.tfmot": -1,
    "quant.layers": -1,
    "quant.packing": -2,
    "quant.quantizers": -2,
    "quant.lq_math": -3,
}
MAINS = {"rs_keras.train", "rs_keras.run", "rs_keras.evaluate", "rs_keras.predict"}
MAY_IMPORT_CONFIG = MAINS | {"rs_keras.build"}
MAY_IMPORT_FLAGS = {
    "rs_keras.config",
    "rs_keras.flag_definitions",
    "rs_keras.tool_flag_definitions",
}

# Everything else runs on keras.ops alone, on machines without TensorFlow too.
TENSORFLOW = {
    "ai_edge_litert",
    "flatbuffers",
    "tensorflow",
    "tensorflow_datasets",
    "tensorflow_model_optimization",
    "tensorboard",
    "tf_keras",
}
PACKAGES = ("rs_keras", "quant", "tools")
MAY_IMPORT_TENSORFLOW = {
    "rs_keras.train": "main",
    "rs_keras.evaluate": "main",
    "rs_keras.predict": "main",
    "rs_keras.build": "threads are set before TensorFlow starts; tf.data",
    "rs_keras.data": "tf.data",
    "rs_keras.export": "SavedModel, the TFLite converter and LiteRT",
    "rs_keras.profiling.tflite_process": "LiteRT, and nothing else, is measured",
    "rs_keras.layers.switchable_norm": "the fused kernel, where it applies",
    "quant.tfmot": "tensorflow-model-optimization runs on tf_keras",
    "rs_keras.training.devices": "threads are set before TensorFlow starts",
    "rs_keras.training.devices_tensorflow": "tf.distribute",
    "rs_keras.training.step_tensorflow": "tapes, replicas, the order of a graph",
    "rs_keras.training.tensorboard": "tf.summary writes what TensorBoard shows",
    "tools": "thin command lines over the rooms above",
}


def _module_name(path, root):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _sources(root):
    """{module name: path} of everything that has a rank."""
    paths = [path for top in PACKAGES for path in (root / top).rglob("*.py")]
    return {_module_name(path, root): path for path in sorted(paths)}


def _imports(name, path, modules):
    """Every module that a file imports, at any depth: [(line, module name), ...]."""
    found = []
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(parents + ([base] if base else []))
            for alias in node.names:
                full = f"{base}.{alias.name}"
                known = full in modules or full in RANKS or full == "absl.flags"
                found.append((node.lineno, full if known else base))
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute | ast.Name)
            and (getattr(node.func, "attr", "") or getattr(node.func, "id", ""))
            in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.append((node.lineno, str(node.args[0].value)))
    return found


def _longest_prefix(name, table):
    parts = name.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in table), None)


def _room(name):
    room = _longest_prefix(name, RANKS)
    return name if room == "tools" else room


def _rank(name):
    return RANKS[_longest_prefix(name, RANKS)]


def _import_violation(name, target):
    """What is wrong with `name` importing `target`, or None."""
    top = target.partition(".")[0]
    if name == "rs_keras":
        if top not in sys.stdlib_module_names:
            return "the package itself imports the standard library only"
        return None
    if top in TENSORFLOW:
        if target.startswith("tensorflow.keras"):
            return "`import keras`, never tf.keras"
        if _longest_prefix(name, MAY_IMPORT_TENSORFLOW) is None:
            return "not among the modules that may import TensorFlow"
    if target.startswith("absl.flags") and name not in MAY_IMPORT_FLAGS:
        return "only rs_keras.config reads flags"
    if top not in PACKAGES:
        return None
    if target == "rs_keras":
        if _rank(name) < RANKS["tools"]:
            return "inside the package modules are imported, not the lazy public names"
        return None
    if _room(target) is None:
        return "the target has no rank"
    if target == "rs_keras.config" and not (
        name in MAY_IMPORT_CONFIG | {target} or _room(name).startswith("tools")
    ):
        return "only the mains, the tools and rs_keras.build import rs_keras.config"
    if _room(name) != _room(target) and _rank(target) >= _rank(name):
        return "not strictly down"
    return None


def violations(root):
    """All broken rules of the tree under `root`, one line each."""
    modules = _sources(root)
    found = []
    for name, path in modules.items():
        where = path.relative_to(root).as_posix()
        if name not in PACKAGES and _room(name) is None:
            found.append(f"{where}: {name} has no rank")
            continue
        for line, target in _imports(name, path, modules):
            problem = _import_violation(name, target)
            if problem:
                found.append(f"{where}:{line}: imports {target}: {problem}")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "tf.keras":
                found.append(f"{where}:{node.lineno}: `import keras`, never tf.keras")
    for top in (*PACKAGES, "tests", "benchmarks"):
        for path in sorted((root / top).rglob("*.py")):
            where = path.relative_to(root).as_posix()
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > MAXIMUM_LINES:
                found.append(f"{where}: {lines} lines, more than {MAXIMUM_LINES}")
            if path.name in FORBIDDEN_NAMES:
                found.append(f"{where}: a name that says nothing")
    return found


def test_the_sources_keep_the_rules():
    assert violations(ROOT) == []


def _write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


CLEAN_TREE = {
    "rs_keras/__init__.py": "import importlib\n",
    "rs_keras/resolutions.py": "import numbers\n",
    "rs_keras/config.py": "from absl import flags\nfrom rs_keras import resolutions\n",
    "rs_keras/losses/__init__.py": "",
    "rs_keras/losses/distillation.py": "import keras\n",
    "rs_keras/training/__init__.py": "",
    "rs_keras/training/trainer.py": "from rs_keras.losses import distillation\n",
    "rs_keras/layers/__init__.py": "",
    "rs_keras/layers/conv_bn.py": "from . import switchable_norm\n",
    "rs_keras/layers/switchable_norm.py": "import tensorflow as tf\n",
    "rs_keras/models/__init__.py": "",
    "rs_keras/models/resnet.py": "from rs_keras.layers import conv_bn\n",
    "rs_keras/build.py": "from rs_keras import config\nimport rs_keras.models.resnet\n",
    "rs_keras/train.py": "from rs_keras import build\nimport tensorflow\n",
    "tools/export.py": "import rs_keras\n",
    "quant/__init__.py": "",
    "quant/lq_math.py": "from keras import ops\n",
    "quant/quantizers.py": "from quant import lq_math\n",
}


def test_a_clean_tree_has_no_violation(tmp_path):
    _write(tmp_path, CLEAN_TREE)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    "file, text, expected",
    [
        ("layers/a.py", "from rs_keras.models import resnet", "not strictly down"),
        ("layers/a.py", "from ..models.resnet import ResNet", "not strictly down"),
        ("layers/a.py", "import rs_keras.training.trainer", "not strictly down"),
        ("layers/a.py", "def f():\n  from rs_keras import train", "not strictly down"),
        ("losses/a.py", "from rs_keras.layers import conv_bn", "not strictly down"),
        ("losses/a.py", "from rs_keras.data import shapes", "not strictly down"),
        ("models/a.py", "from rs_keras.export import tflite", "not strictly down"),
        ("resolutions.py", "import rs_keras.losses", "not strictly down"),
        ("models/a.py", "import tools.export", "not strictly down"),
        (
            "models/a.py",
            "import importlib\nimportlib.import_module('rs_keras.build')",
            "not strictly down",
        ),
        ("models/a.py", "from rs_keras import config", "only the mains"),
        ("models/a.py", "from rs_keras import resnet18", "lazy public names"),
        ("models/a.py", "import tensorflow as tf", "may import TensorFlow"),
        ("losses/a.py", "def f():\n  import tensorflow", "may import TensorFlow"),
        ("layers/a.py", "from ai_edge_litert import schema", "may import TensorFlow"),
        ("data/a.py", "from tensorflow.keras import layers", "never tf.keras"),
        ("data/a.py", "import tensorflow as tf\ntf.keras.Model", "never tf.keras"),
        ("train.py", "from absl import flags", "only rs_keras.config reads flags"),
        ("data/a.py", "import absl.flags", "only rs_keras.config reads flags"),
        ("__init__.py", "import keras", "standard library only"),
        ("__init__.py", "from rs_keras.models import resnet", "standard library only"),
        ("../quant/layers.py", "import rs_keras.losses", "not strictly down"),
        ("../quant/quantizers.py", "from quant import layers", "not strictly down"),
        ("../quant/lq_math.py", "import tensorflow", "may import TensorFlow"),
        ("attic/a.py", "", "has no rank"),
        ("models/a.py", "from rs_keras import attic\nimport rs_keras.attic", "no rank"),
        ("models/a.py", "\n" * 301, "301 lines, more than 300"),
        ("models/utils.py", "", "a name that says nothing"),
    ],
)
def test_each_rule_can_fail(tmp_path, file, text, expected):
    _write(tmp_path, CLEAN_TREE | {f"rs_keras/{file}": text})
    found = violations(tmp_path)
    file = f"rs_keras/{file}".replace("rs_keras/../", "")
    assert any(file in line and expected in line for line in found), found
