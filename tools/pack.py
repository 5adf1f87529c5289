"""Packs a low-bit network: python -m tools.pack --workdir=DIR --output=model.lq

Prints what the file's bytes are, and how far its logits are from those of the network.
`rs_keras.load_packed("model.lq")` reads it; docs/packed_format.md has its layout.
"""

from rs_keras import config as config_lib
from rs_keras import tool_flag_definitions
from rs_keras import workdir as workdir_lib


def main():
    with config_lib.mistakes():
        config_lib.require("workdir", "output")
        config_lib.check_json()
        values = config_lib.values()
        workdir = workdir_lib.Workdir(values.workdir)
        workdir.trained_model()

        from rs_keras.checkpoints import keras_file
        from rs_keras.checkpoints import packed
        from rs_keras.checkpoints import packed_file

        packed_file.check_output(values.output)
        config_lib.check_overwrite()
        report = packed.pack(
            keras_file.load(workdir.path),
            values.output,
            rest=values.rest,
            training_state=values.training_state,
        )
        print("\n".join(lines(report, values.output, values.rest)))
        if values.json:
            workdir_lib.write_json(values.json, report)


def lines(report, output, rest):
    """The report of `packed.pack` as text."""
    parts = report["bytes"]
    yield (
        f"{output}: {parts['total']:,} bytes, 1/{report['ratio']:.2f} of the "
        f"{report['float32_bytes']:,} bytes of float32 weights"
    )
    codes = f"codes {parts['codes']:,}"
    if report["quantized_weights"]:
        codes += (
            f" ({report['bits_per_weight']:.3f} bits for each of "
            f"{report['quantized_weights']:,} weights)"
        )
    more = [f"{name} {parts[name]:,}" for name in ("bases", "rest", "header")]
    yield ", ".join([codes, *more])
    rounding = report["rounding"]
    yield f"rounding of the rest to {rest}: " + (
        f"at most {rounding['largest']:.2%} of a tensor's largest value "
        f"({rounding['weight']})"
        if rounding["weight"]
        else "none"
    )
    for key, found in report["logits"].items():
        yield (
            f"logits at {key}: differ by at most {found['largest_difference']:.3g}, "
            f"the largest being {found['largest']:.3g}; same class for "
            f"{found['same_class']:.0%} of the generated images"
        )


if __name__ == "__main__":
    tool_flag_definitions.define_pack_flags()
    config_lib.run(main)
