"""Classifies images: python -m rs_keras.predict --workdir=... --images=DIR|FILE

Prints the likeliest classes of each image with their probabilities.
"""

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
        from rs_keras.data import pipeline
        from rs_keras.training import devices

        paths = pipeline.list_images(values.images)
        devices.set_threads(values.threads)
        model = keras_file.load(workdir.path)
        resolution = model.check_resolution(values.resolution)
        dataset = pipeline.files_dataset(
            paths, resolution, batch_size=values.batch_size, fit=values.fit
        )
        with pipeline.damaged_images():
            rows = _predict(model, dataset, paths, resolution, values.top)
    _print(rows, pathlib.Path(values.images))
    if values.json:
        with config_lib.mistakes():
            workdir_lib.write_json(
                values.json, {"resolution": resolution, "images": rows}
            )


def _predict(model, dataset, paths, resolution, top):
    import numpy as np
    from keras import ops

    names = model.class_names or [str(i) for i in range(model.num_classes)]
    rows = []
    for images in dataset:
        logits = model.predict(images, resolution=resolution, verbose=0)
        for row in ops.convert_to_numpy(ops.softmax(logits)):
            best = np.argsort(-row, kind="stable")[:top]
            found = [{"class": names[i], "probability": float(row[i])} for i in best]
            rows.append({"image": str(paths[len(rows)]), "predictions": found})
    return rows


def _print(rows, root):
    names = [pathlib.Path(row["image"]) for row in rows]
    names = [str(n.relative_to(root)) if n != root else n.name for n in names]
    width = max(map(len, names))
    for name, row in zip(names, rows, strict=True):
        found = "  ".join(
            f"{p['class']} {p['probability']:.1%}" for p in row["predictions"]
        )
        print(f"{name:<{width}}  {found}")


def console():
    """Entry point of `rs-keras-predict`."""
    flag_definitions.define_predict_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()
