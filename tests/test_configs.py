"""Every recipe parses, builds its network at full size, and takes a step."""

import dataclasses
import pathlib

import numpy as np
import pytest
from absl import flags

from rs_keras import build
from rs_keras import config as config_lib
from rs_keras import flag_definitions
from rs_keras import resolutions as resolutions_lib

if "model" not in flags.FLAGS:
    flag_definitions.define_train_flags()

RECIPES = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.cfg"))
CLASSES = {"tfds:imagenet2012": 1000, "shapes": 14}


def parsed(path, *more):
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS(["train", f"--flagfile={path}", "--workdir=unused", *more])
    return config_lib.train_config()


def test_there_are_recipes():
    assert len(RECIPES) >= 12


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_header_has_the_command(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    command = f"python -m rs_keras.train --flagfile=configs/{path.name} --workdir="
    assert any(command in line for line in header)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_trains(path):
    """The network at full size, and one step of its narrow twin on small images."""
    config = parsed(path)
    classes = [str(i) for i in range(CLASSES.get(config.dataset, 29))]
    assert build.classifier(config, classes).resolutions == config.resolutions

    # The same flags at a width and at sizes that a test can pay for.
    sizes = tuple(32 + 8 * i for i in reversed(range(len(config.resolutions))))
    small = dataclasses.replace(config, width=0.125, resolutions=sizes)
    model = build.classifier(small, classes)
    build.compile_model(model, small, steps_per_epoch=10)
    model.run_eagerly = True
    generator = np.random.default_rng(0)
    keys = resolutions_lib.branch_keys(sizes, small.views)
    images = {
        key: generator.integers(0, 256, (2, side, side, 3), dtype=np.uint8)
        for key, side in zip(keys, sizes * small.views, strict=True)
    }
    before = np.array(model.head.kernel)
    logs = model.train_on_batch(images, np.array([0, 1]), return_dict=True)
    assert np.isfinite(logs["loss"])
    assert not np.array_equal(before, np.array(model.head.kernel))


def test_schedules_start_and_end_where_the_paper_says():
    """Cosine, step by step: lr0 (1 + cos(pi t / T)) / 2; warm-up is linear from 0."""
    path = next(p for p in RECIPES if p.stem == "imagenet_resnet18_rsnet")
    model = build.classifier(parsed(path), ["a", "b"])
    for more, expected in (
        ((), lambda t: 0.1 * (1 + np.cos(np.pi * t / 1200)) / 2),
        (
            ("--warmup_epochs=5",),
            lambda t: (
                0.1 * t / 50
                if t < 50
                else 0.1 * (1 + np.cos(np.pi * (t - 50) / 1150)) / 2
            ),
        ),
        (("--schedule=constant",), lambda t: 0.1),
    ):
        build.compile_model(model, parsed(path, *more), steps_per_epoch=10)
        for step in (0, 1, 25, 50, 600, 1199):
            model.optimizer.iterations.assign(step)
            rate = float(model.optimizer.learning_rate)
            # float32 arithmetic of the schedule
            np.testing.assert_allclose(rate, expected(step), rtol=1e-5, atol=1e-7)


def test_steps_fall_by_ten_at_the_ends_of_the_epochs():
    path = next(p for p in RECIPES if p.stem == "imagenet_resnet18_w2a2_rsnet")
    config = parsed(path)
    model = build.classifier(config, ["a", "b"])
    build.compile_model(model, config, steps_per_epoch=10)
    optimizer = model.optimizer
    assert (optimizer.nesterov, optimizer.decay_scope) == (True, "kernels")
    for step, expected in (
        (0, 0.1),
        (299, 0.1),
        (300, 0.01),
        (1049, 1e-5),
        (1050, 1e-6),
    ):
        optimizer.iterations.assign(step)
        np.testing.assert_allclose(float(optimizer.learning_rate), expected, rtol=1e-5)
