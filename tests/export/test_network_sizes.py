"""Five resolutions of the official networks in one file cost little more than one."""

import numpy as np
import pytest

import rs_keras
from rs_keras.export import network as network_lib
from rs_keras.export import tflite
from tests.export import test_saved_model as saved

FIVE = (224, 192, 160, 128, 96)
# Bytes of a stock file over those of a kernel.
DIVISORS = {"float32": 1, "float16": 2, "int8_weights": 4}
# Beside the kernels, bytes for each channel of a normalization at five resolutions.
PRIVATE = 32
# {network: {layout: bounds for the precisions, in the order of `DIVISORS`}}: what was
# measured, and a little. Graphs weigh most where kernels are small and many.
BOUNDS = {
    "resnet18": {
        "signatures": (1.001, 1.003, 1.009),
        "dynamic": (1.006, 1.003, 1.010),
    },
    "resnet50": {
        "signatures": (1.001, 1.004, 1.013),
        "dynamic": (1.013, 1.006, 1.017),
    },
    "mobilenet_v2": {
        "signatures": (1.003, 1.016, 1.060),
        "dynamic": (1.055, 1.020, 1.072),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDS)
def test_five_resolutions_cost_a_share_of_one_file(name, record_property):
    model = saved.spread(getattr(rs_keras, name)(FIVE, 1000))
    channels = sum(w.shape[1] for w in model.weights if w.name == "gamma")
    elements = sum(np.size(w) for w in model.weights if w.name.endswith("kernel"))
    network = network_lib.InferenceNetwork(model)
    one = tflite.static_functions(network, (224,), "float32")
    stock = len(tflite.stock(network, one))
    assert stock > 4 * elements
    for layout, bounds in BOUNDS[name].items():
        for (precision, divisor), bound in zip(DIVISORS.items(), bounds, strict=True):
            data, report = tflite.convert(model, layout, precision)
            assert report["bytes_by_kind"]["kernels"] == 4 * elements // divisor
            share = len(data) / (stock / divisor + PRIVATE * channels)
            record_property(f"{layout} {precision}", (len(data), round(share, 4)))
            print(f"{name} {layout} {precision}: {len(data):,} bytes, {share:.4f}")
            assert share <= bound, (layout, precision, share)
