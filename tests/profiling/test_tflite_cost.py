"""What .tflite files cost: everything is there, and failures stay with their file."""

import os
import pathlib

import pytest

from rs_keras import pictures
from rs_keras.export import network as network_lib
from rs_keras.export import tflite
from rs_keras.profiling import tflite_client
from rs_keras.profiling import tflite_cost
from rs_keras.profiling import tflite_entry
from rs_keras.profiling import tflite_process

LINUX = os.path.exists("/proc/self/smaps_rollup")


@pytest.fixture(scope="module")
def files(tiny, tmp_path_factory):
    """{layout: path}, and "stock": what TensorFlow makes of the smallest resolution."""
    model, folder = tiny(), tmp_path_factory.mktemp("files")
    network = network_lib.InferenceNetwork(model)
    data = {
        "stock": tflite.stock(
            network, tflite.static_functions(network, (32,), "uint8")
        ),
        "signatures": tflite.convert(model, "signatures")[0],
        "dynamic": tflite.convert(model, "dynamic")[0],
    }
    for name, content in data.items():
        (folder / f"{name}.tflite").write_bytes(content)
    return {name: folder / f"{name}.tflite" for name in data}


@pytest.mark.parametrize("layout", ["signatures", "dynamic"])
def test_a_file_tells_where_its_images_go_in(files, layout):
    entry = tflite_entry.entry("file", [files[layout]], default=(32, 64, 48))
    assert entry.layout == layout
    assert entry.bytes == files[layout].stat().st_size
    assert list(entry.places) == [64, 48, 32]
    place = entry.places[48]
    assert place["shape"] == [1, 48, 48, 3]
    assert place["dtype"] == "float32"
    assert place["input"] == "image"
    assert place["open"] == (layout == "dynamic")


def test_the_resolutions_of_an_open_size_come_from_the_report(files, tmp_path):
    path = tmp_path / "copy.tflite"
    path.write_bytes(files["dynamic"].read_bytes())
    report = pathlib.Path(f"{path}.report.json")
    report.write_text('{"resolutions": [40, 56]}')
    assert list(tflite_entry.entry("", [path]).places) == [56, 40]
    assert list(tflite_entry.entry("", [path], (64,)).places) == [64]
    report.write_text("{}")
    with pytest.raises(ValueError, match="name --resolutions where it is not"):
        tflite_entry.entry("", [path])


@pytest.fixture(scope="module")
def measured(files):
    several = [files["stock"], files["signatures"]]
    entries = [
        tflite_entry.entry("several", several),
        tflite_entry.entry("dynamic", [files["dynamic"]], (64, 40, 32)),
    ]
    lines = []
    return tflite_cost.measure(entries, runs=6, progress=lines.append), lines


@pytest.mark.parametrize("api", tflite_cost.APIS)
def test_every_way_measures_every_resolution(measured, files, api):
    report, lines = measured
    assert any(line.startswith(f"{api}: 6 runs of each") for line in lines)
    several, dynamic = (file["apis"][api] for file in report["files"])
    assert list(several["resolutions"]) == ["64", "48", "32"]
    assert list(dynamic["resolutions"]) == ["64", "40", "32"]
    for found in (several, dynamic):
        assert found["load_ms"] > 0
        for row in found["resolutions"].values():
            assert 0 < row["median_ms"] <= row["p90_ms"]
            assert row["first_ms"] > 0
    assert {row["ratio"] for row in several["resolutions"].values()} == {1.0}
    ratios = {r: row["ratio"] for r, row in dynamic["resolutions"].items()}
    assert ratios.pop("40") is None  # a size of which the first has none
    assert min(ratios.values()) > 0
    assert dynamic["switch_ms"] > 0  # it resizes
    if api == "compiled_model_disk_cache":
        assert dynamic["load_cold_ms"] > 0
        assert several["cache_bytes"] > files["stock"].stat().st_size / 2


@pytest.mark.skipif(not LINUX, reason="the memory of a process is read from /proc")
def test_memory_grows_from_step_to_step(measured):
    for file in measured[0]["files"]:
        for api in file["apis"].values():
            memory = api["memory"]
            for kind in ("resident", "anonymous"):
                steps = [memory[when][kind] for when in ("base", "loaded", "run")]
                assert 2**22 < steps[0] < steps[1]
                # What is run may give back what the load had to have.
                assert steps[2] > steps[0]
            # More than the bytes: TensorFlow is not among what the process has loaded.
            assert memory["base"]["resident"] < 150e6


def test_one_resolution_has_no_switch_and_a_failure_stays_with_its_file(
    files, tmp_path
):
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(files["dynamic"].read_bytes())
    entries = [
        tflite_entry.entry("damaged", [damaged], (32,)),
        tflite_entry.entry("stock", [files["stock"]]),
    ]
    damaged.write_bytes(b"gone")
    report = tflite_cost.measure(entries, tflite_cost.APIS[:2], runs=1)
    first, second = (file["apis"] for file in report["files"])
    for api in tflite_cost.APIS[:2]:
        assert set(first[api]) == {"error"}
        assert first[api]["error"]
        assert second[api]["switch_ms"] is None
        assert second[api]["resolutions"]["32"]["ratio"] is None


def test_a_process_that_ends_is_a_failure_that_says_why():
    with tflite_client.Process() as process:
        with pytest.raises(tflite_client.Failure, match="object has no attribute"):
            process.ask("nothing")
        process._process.kill()
        with pytest.raises(tflite_client.Failure, match="ended with SIGKILL"):
            process.ask("memory")


@pytest.mark.skipif(not LINUX, reason="the memory of a process is read from /proc")
def test_memory_is_what_the_system_counts():
    before = tflite_process.memory()
    block = bytearray(os.urandom(1 << 20)) * 64
    after = tflite_process.memory()
    for kind in ("resident", "anonymous"):
        assert after[kind] - before[kind] > 0.9 * len(block)


def test_a_picture_has_a_line_for_each_file(tmp_path):
    curves = {
        "a.tflite": [(1.5, 0.7, "64"), (1.0, 0.6, "32")],
        "b.tflite": [(1.0, 0.7, "64")],
    }
    for name in ("picture.svg", "picture.png"):
        path = tmp_path / name
        pictures.accuracy_against_cost(path, curves, "ms")
        assert path.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")


def test_unknown_ways_are_refused():
    for apis in ((), ("interpreter", "gpu")):
        with pytest.raises(ValueError, match="`apis` must be some of"):
            tflite_cost.check_apis(apis)
