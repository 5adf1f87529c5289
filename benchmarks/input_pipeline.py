"""How many images a second one core makes for training, and what takes the time.

    python benchmarks/input_pipeline.py --images=DIR [--rounds=3] [--json=FILE]

`DIR` holds photographs, also in directories of its own. Each is read, cropped at random
and resized to five resolutions: by the package, with each --resize, and by Pillow,
which makes the same crops. What the package does is also timed step by step. One
thread, processor time, the best of the rounds; methods take turns. Prints a JSON line.
"""

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import PIL
import tensorflow as tf
from PIL import Image

from rs_keras.data import decoding
from rs_keras.data import image_files
from rs_keras.data import multi_resolution
from rs_keras.data import transforms

RESOLUTIONS = (224, 192, 160, 128, 96)
BRANCHES = {side: side for side in RESOLUTIONS}
# Images before the clock starts: the first ones also build the graph.
WARM_UP = 16


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    paths = [str(path) for path in image_files.list_images(args.images)]
    methods = {
        **{name: timed_graph(paths, make) for name, make in STEPS.items()},
        **{
            f"resize={mode}": timed_graph(paths, images_of(mode))
            for mode in multi_resolution.RESIZES
        },
        "validation": timed_graph(paths, validation_images),
        "pillow": timed_pillow(paths),
    }
    best = {}
    for _ in range(args.rounds):
        for name, method in methods.items():
            best[name] = min(best.get(name, np.inf), method())
    milliseconds = {k: round(1000 * v, 3) for k, v in best.items()}
    limit = best["read + decode crop"]
    found = {
        "images": len(paths),
        "megapixels": round(np.mean([megapixels(path) for path in paths]), 3),
        "resolutions": RESOLUTIONS,
        "milliseconds": milliseconds,
        "images_per_second": {k: round(1 / v, 1) for k, v in best.items()},
        "share_of_crop_decoding": {
            mode: round(limit / best[f"resize={mode}"], 3)
            for mode in multi_resolution.RESIZES
        },
        "times_pillow": {
            mode: round(best["pillow"] / best[f"resize={mode}"], 3)
            for mode in multi_resolution.RESIZES
        },
        "levels_off_exact": differences(paths),
        "versions": {"tensorflow": tf.__version__, "pillow": PIL.__version__},
    }
    print(json.dumps(found))
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(found, indent=1) + "\n")


def timed_graph(paths, make):
    """A function that times `make(path, seed)`, seconds an image."""
    dataset = tf.data.Dataset.from_tensor_slices(paths).enumerate().repeat(2)
    dataset = dataset.map(lambda i, path: make(path, transforms.fold_seed(0, 0, i)))
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    dataset = dataset.take(len(paths) + WARM_UP).with_options(options)

    def method():
        iterator = iter(dataset)
        for _ in range(WARM_UP):
            next(iterator)
        start = time.process_time()
        for _ in iterator:
            pass
        return (time.process_time() - start) / len(paths)

    return method


def timed_pillow(paths):
    """A function that times the same work in Pillow, seconds an image."""
    choices = [pillow_choices(path, i) for i, path in enumerate(paths)]

    def method():
        start = time.process_time()
        for path, (box, mirrored) in zip(paths, choices, strict=True):
            crop = Image.open(path).convert("RGB").crop(box)
            for side, mirror in zip(RESOLUTIONS, mirrored, strict=True):
                image = crop.resize((side, side), Image.Resampling.BILINEAR)
                if mirror:
                    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                np.asarray(image)
        return (time.process_time() - start) / len(paths)

    return method


def pillow_choices(path, index):
    width, height = Image.open(path).size
    window = window_of(transforms.fold_seed(0, 0, index))
    top, left, h, w = (int(v) for v in window(height, width))
    coins = np.random.default_rng(index).random(len(RESOLUTIONS)) < 0.5
    return (left, top, left + w, top + h), coins


def window_of(seed):
    key = transforms.fold_seed(seed, 0, 0)  # as `train_images` does
    return lambda height, width: transforms.draw_crop(height, width, key)


def images_of(mode):
    def make(path, seed):
        data = tf.io.read_file(path)
        return multi_resolution.train_images(data, None, BRANCHES, seed, resize=mode)

    return make


def validation_images(path, seed):
    data = tf.io.read_file(path)
    return multi_resolution.validation_images(data, path, BRANCHES)


def crop_of(path, seed):
    return decoding.decode_crop(tf.io.read_file(path), window_of(seed))


# Each has one step more than the one before.
STEPS = {
    "read": lambda path, seed: tf.strings.length(tf.io.read_file(path)),
    "read + decode crop": crop_of,
    "read + decode whole": lambda path, seed: decoding.decode(tf.io.read_file(path)),
    "read + decode crop + resize": lambda path, seed: tuple(
        transforms.squash_each(crop_of(path, seed), RESOLUTIONS)
    ),
}


def differences(paths):
    """Mean and largest difference to exact images, by mode and resolution."""
    found = {}
    for mode in ("chained", "device"):
        rows = {side: [] for side in RESOLUTIONS}
        for index, path in enumerate(paths[::4]):
            crop = crop_of(path, transforms.fold_seed(0, 0, index))
            exact = transforms.squash_each(crop, RESOLUTIONS)
            if mode == "chained":
                others = transforms.squash_chained(crop, RESOLUTIONS)
            else:
                others = [transforms.squash(exact[0], side) for side in RESOLUTIONS]
            for side, a, b in zip(RESOLUTIONS, exact, others, strict=True):
                rows[side].append(np.abs(a.numpy().astype(int) - b.numpy()))
        found[mode] = {
            side: {
                "mean": round(float(np.mean([x.mean() for x in row])), 3),
                "largest": int(max(x.max() for x in row)),
            }
            for side, row in rows.items()
        }
    return found


def megapixels(path):
    width, height = Image.open(path).size
    return width * height / 1e6


if __name__ == "__main__":
    main()
