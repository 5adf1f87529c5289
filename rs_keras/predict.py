"""Classifies images: python -m rs_keras.predict --workdir=... --images=DIR|FILE

Prints the likeliest classes of each image with their probabilities.
"""

import os
import pathlib

from rs_keras import config as config_lib
from rs_keras import flag_definitions
from rs_keras import workdir as workdir_lib


def main():
    with config_lib.mistakes():
        config_lib.require("workdir", "images")
        config_lib.check_json()
        values = config_lib.values()
        workdir = workdir_lib.Workdir(values.workdir)
        workdir.trained_model()

        from rs_keras.checkpoints import keras_file
        from rs_keras.data import damage
        from rs_keras.data import image_files
        from rs_keras.data import scan
        from rs_keras.training import devices

        paths = image_files.list_images(values.images)
        devices.start(values.threads)
        model = keras_file.load(workdir.path)
        resolution = model.check_resolution(values.resolution)
        options = {"batch_size": values.batch_size, "fit": values.fit}
        if os.path.isdir(values.images):
            dataset = image_files.good_files_dataset(paths, resolution, **options)
        else:
            dataset = image_files.files_dataset(paths, resolution, **options)
            dataset = dataset.map(lambda images: ([0], images))
        with damage.damaged_images():
            rows = _predict(model, dataset, resolution, values.top)
        skipped = scan.skipped(p for i, p in enumerate(paths) if i not in rows)
        if not rows:
            raise ValueError(
                "At least one image must be good. "
                f"Received: {values.images}, with {len(paths)} that are not"
            )
    names = [str(path) for path in paths]
    _print({names[i]: row for i, row in rows.items()}, pathlib.Path(values.images))
    if values.json:
        images = [
            {"image": scan.as_text(names[i]), "predictions": row}
            for i, row in rows.items()
        ]
        found = {"resolution": resolution, "images": images}
        with config_lib.mistakes():
            workdir_lib.write_json(
                values.json, {**found, "skipped_images": scan.listed(skipped)}
            )


def _predict(model, dataset, resolution, top):
    """{position of the image: its likeliest classes}."""
    import numpy as np
    from keras import ops

    names = model.class_names or [str(i) for i in range(model.num_classes)]
    rows = {}
    for positions, images in dataset:
        logits = model.predict(images, resolution=resolution, verbose=0)
        shares = ops.convert_to_numpy(ops.softmax(logits))
        for position, row in zip(positions.numpy(), shares, strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            rows[int(position)] = [
                {"class": names[i], "probability": float(row[i])} for i in best
            ]
    return rows


def _print(rows, root):
    from rs_keras.data import folder

    names = [pathlib.Path(name) for name in rows]
    names = [n.relative_to(root) if n != root else n.name for n in names]
    names = [folder.printable(name) for name in names]
    width = max(map(len, names))
    for name, row in zip(names, rows.values(), strict=True):
        found = "  ".join(f"{p['class']} {p['probability']:.1%}" for p in row)
        print(f"{name:<{width}}  {found}")


def console():
    """Entry point of `rs-keras-predict`."""
    flag_definitions.define_predict_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()
