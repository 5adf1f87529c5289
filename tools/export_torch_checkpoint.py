"""Writes a network in the layout of the authors' PyTorch code: ... --output=FILE.pth

Of a run (--workdir) or of a .keras file (--model). The file holds the state dict that
`load_state_dict` of their ResNets and MobileNetV2 takes, bit for bit our float32.
"""

import pathlib
import sys

from rs_keras import config as config_lib
from rs_keras import tool_flag_definitions
from rs_keras import workdir as workdir_lib


def main():
    with config_lib.mistakes():
        config_lib.require("output")
        values = config_lib.values()
        if (values.workdir is None) == (values.model is None):
            raise ValueError(
                "One of --workdir and --model is needed. "
                f"Received: --workdir={values.workdir} --model={values.model}"
            )
        if values.workdir is not None:
            workdir_lib.Workdir(values.workdir).trained_model()
        output = pathlib.Path(values.output)

        from rs_keras.checkpoints import keras_file
        from rs_keras.checkpoints import torch_file
        from rs_keras.checkpoints import torch_import

        torch_file.check_suffix(output)
        config_lib.check_file("output", torch_file.SUFFIXES)
        config_lib.check_overwrite()
        model = keras_file.load(values.workdir or values.model)
        arrays = torch_import.state_dict(model)
        torch_file.write(output, arrays)
    if model.scaling != "unit":
        print(
            f"warning: this network scales images by {model.scaling}; the authors' "
            "code divides them by 255 and would need the same scaling",
            file=sys.stderr,
        )
    total = sum(array.size for array in arrays.values())
    print(f"{output}: {len(arrays)} arrays, {total:,} float32 numbers")


def console():
    tool_flag_definitions.define_torch_export_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()
