"""Makes a .keras file of a PyTorch checkpoint: ... --checkpoint=FILE --model=resnet18

Takes .pth files (`weights_only=True`: nothing in them is executed) and .safetensors, of
the authors' code, with as many --resolutions as it was trained at, largest first, or of
torchvision and timm, whose batch normalization is copied to every resolution.
`python -m rs_keras.train --init_from=FILE.keras` goes on from the result.
"""

import pathlib

from rs_keras import config as config_lib
from rs_keras import tool_flag_definitions


def main():
    with config_lib.mistakes():
        config_lib.require("checkpoint", "output")
        values = config_lib.values()
        resolutions = config_lib.resolutions()
        output = _checked_output(values)

        from rs_keras import build
        from rs_keras.checkpoints import keras_file
        from rs_keras.checkpoints import torch_file
        from rs_keras.checkpoints import torch_import
        from rs_keras.checkpoints import torch_plain

        arrays = torch_file.read(values.checkpoint)
        branches = torch_import.branches(arrays)
        if branches not in (None, len(resolutions)):
            raise ValueError(
                f"--resolutions must name the {branches} resolutions of the "
                f"checkpoint, largest first. Received: --resolutions={resolutions}"
            )
        theirs = torch_import.num_classes(arrays)
        classes = theirs if values.num_classes is None else values.num_classes
        if classes != theirs and not values.reset_head:
            raise ValueError(
                f"--num_classes other than the checkpoint's {theirs} needs "
                f"--reset_head. Received: --num_classes={classes}"
            )
        scaling = "unit" if branches else torch_plain.SCALING
        model = build.MODELS[values.model](
            resolutions,
            classes,
            width=values.width,
            scaling=values.scaling or scaling,
        )
        torch_import.load_checkpoint(model, arrays, reset_head=values.reset_head)
        keras_file.save(model, output)
    layout = "the authors' code" if branches else "torchvision or timm"
    head = "a new head" if values.reset_head else "its head"
    sides = ", ".join(map(str, model.resolutions))
    print(
        f"{output}: {values.model} at {sides}, {len(arrays)} arrays in the layout of "
        f"{layout}, with {head} of {classes} classes. A run starts from it with "
        f"--init_from={output} --scaling={model.scaling}"
    )


def _checked_output(values):
    path = pathlib.Path(values.output)
    if path.suffix != ".keras" or not path.parent.is_dir():
        raise ValueError(
            "--output must be a .keras file in a directory that exists. "
            f"Received: --output={path}"
        )
    config_lib.check_overwrite()
    return path


def console():
    tool_flag_definitions.define_import_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()
