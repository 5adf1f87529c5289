"""Bytes of RS-ResNet-18 with 1000 classes: as .keras, and as .lq with each `--rest`.

    python benchmarks/packed_size.py

The network is not trained, which makes no difference to the sizes. Prints one JSON
line; "ratio" is the bytes of all float32 weights but the quantizers' over those of the
file.
"""

import json
import pathlib
import tempfile

RESOLUTIONS = (224, 192, 160, 128, 96)
BITS = {"w2a32": (2, 32), "w2a2": (2, 2)}


def main():
    found = {name: measure(*bits) for name, bits in BITS.items()}
    print(json.dumps({"resolutions": RESOLUTIONS, **found}))


def measure(weight_bits, activation_bits):
    import rs_keras
    from rs_keras.checkpoints import packed

    model = rs_keras.resnet18(
        RESOLUTIONS, 1000, weight_bits=weight_bits, activation_bits=activation_bits
    )
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model.save(folder / "model.keras")
        sizes = {"keras": (folder / "model.keras").stat().st_size}
        for rest in packed.RESTS:
            report = packed.pack(model, folder / "model.lq", rest=rest)
            sizes[rest] = report["bytes"]["total"]
            sizes[f"{rest}_ratio"] = round(report["ratio"], 2)
    return {"float32_weights": report["float32_bytes"], **sizes}


if __name__ == "__main__":
    main()
