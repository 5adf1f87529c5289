"""What .tflite files cost on this machine, side by side:
python -m tools.benchmark_tflite --model=a.tflite,b.tflite

Time to load, memory, latency at each resolution, time to switch to another one. With
--workdir the files are compared with one file for each resolution, as TensorFlow's
converter makes them of the run: what there is without this package.
"""

import contextlib
import json
import pathlib
import tempfile

from rs_keras import config as config_lib
from rs_keras import tool_flag_definitions
from rs_keras import workdir as workdir_lib

# Of the columns of a table.
HEADINGS = {
    "interpreter": "interpreter",
    "compiled_model": "compiled_model",
    "compiled_model_memory_cache": "memory cache",
    "compiled_model_disk_cache": "disk cache",
}
WIDTH = 23


def main():
    with contextlib.ExitStack() as stack:
        with config_lib.mistakes():
            config_lib.require("model")
            config_lib.check_json()
            values = config_lib.values()
            if not values.model or not all(values.model):
                raise ValueError("--model must name .tflite files. Received: --model=")
            config_lib.check_plot()
            if values.plot and values.workdir is None:
                raise ValueError(
                    "--plot needs the accuracies of a run, --workdir=DIR. "
                    f"Received: --plot={values.plot}"
                )
            resolutions = config_lib.resolutions()

            from rs_keras.profiling import tflite_cost
            from rs_keras.profiling import tflite_entry

            tflite_cost.check_apis(values.api)
            default, model, accuracies = tflite_entry.RESOLUTIONS, None, None
            if values.workdir is not None:
                workdir = workdir_lib.Workdir(values.workdir)
                workdir.trained_model()
                if values.plot:
                    accuracies = _accuracies(workdir)
                from rs_keras.checkpoints import keras_file

                model = keras_file.load(workdir.path)
                default = model.resolutions
            entries = [
                tflite_entry.entry(title, [path], resolutions, default)
                for title, path in zip(titles(values.model), values.model, strict=True)
            ]
            if model is not None:
                scratch = tempfile.TemporaryDirectory(prefix="rs_keras.")
                directory = stack.enter_context(scratch)
                paths = list(_stock_files(model, pathlib.Path(directory)))
                entries.insert(0, tflite_entry.entry("one file per resolution", paths))
        report = tflite_cost.measure(
            entries, values.api, threads=values.threads, runs=values.runs
        )
    with config_lib.mistakes():
        print("\n".join(lines(report)))
        if values.json:
            workdir_lib.write_json(values.json, report)
        if values.plot:
            _plot(values.plot, report, accuracies)


def titles(paths):
    """The files' names; with their directories where names are equal."""
    names = [pathlib.Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def lines(report):
    """The report of `tflite_cost.measure` as text, at most 100 columns wide."""
    machine, files = report["machine"], report["files"]
    yield (
        f"{machine['processor']}, {machine['cpus']} CPUs, threads "
        f"{machine['threads']}; LiteRT {machine['litert']}; {report['runs']} runs"
    )
    yield (
        "Memory: what is resident (and of it anonymous) above a process that has only "
        "loaded LiteRT."
    )
    yield f"Ratios of latency: to {files[0]['title']}, in turns with it."
    found = [api for file in files for api in file["apis"].values()]
    if any("error" not in api and api["memory"] is None for api in found):
        yield "This system has no /proc, where the memory of a process can be read."
    for file in files:
        yield ""
        several = f", {len(file['paths'])} files" if len(file["paths"]) > 1 else ""
        yield f"{file['title']}: {file['bytes']:,} bytes{several}, {file['layout']}"
        yield from _costs(file["apis"])
        yield from _latencies(file["apis"])


def _costs(apis):
    yield f"  {'':28}load ms  MB after load    MB after all  switch ms"
    for name, api in apis.items():
        if "error" in api:
            yield f"  {name:28}cannot: {api['error'][:60]}"
            continue
        switch = "-" if api["switch_ms"] is None else f"{api['switch_ms']:.2f}"
        row = (
            f"  {name:27}{api['load_ms']:8.1f}  {_megabytes(api['memory'], 'loaded')}"
            f"  {_megabytes(api['memory'], 'run')}  {switch:>9}"
        )
        if "load_cold_ms" in api:
            row += f"  first load {api['load_cold_ms']:.1f}"
        yield row


def _megabytes(memory, when):
    """ "resident (anonymous)", above what there was before the load."""
    if memory is None:
        return f"{'-':>14}"
    grown = {
        kind: f"{(memory[when][kind] - memory['base'][kind]) / 1e6:.1f}"
        for kind in ("resident", "anonymous")
        if memory[when][kind] is not None
    }
    anonymous = f"({grown['anonymous']})" if "anonymous" in grown else ""
    return f"{grown['resident']:>6} {anonymous:>7}"


def _latencies(apis):
    """A row for each resolution, columns for each API: median, p90, ratio."""
    apis = {name: api for name, api in apis.items() if "error" not in api}
    if not apis:
        return
    yield f"  {'':5}" + "".join(f"{HEADINGS[name]:>{WIDTH}}" for name in apis)
    yield f"  {'':5}" + f"{'median':>9} {'p90':>6} {'ratio':>6}" * len(apis)
    for size in next(iter(apis.values()))["resolutions"]:
        row = f"  {size:>5}"
        for api in apis.values():
            found = api["resolutions"][size]
            ratio = "-" if found["ratio"] is None else f"{found['ratio']:.2f}"
            row += f"{found['median_ms']:9.2f} {found['p90_ms']:6.2f} {ratio:>6}"
        yield row


def _stock_files(model, directory):
    """Makes what TensorFlow's converter makes, a file for each resolution: paths."""
    from rs_keras.export import network as network_lib
    from rs_keras.export import tflite

    network = network_lib.InferenceNetwork(network_lib.in_float32(model))
    for number, resolution in enumerate(model.resolutions, 1):
        print(
            f"Converting {model.name} for {resolution} alone "
            f"({number}/{len(model.resolutions)})"
        )
        functions = tflite.static_functions(network, (resolution,), "float32")
        path = directory / f"r{resolution}.tflite"
        path.write_bytes(tflite.stock(network, functions))
        yield path


def _accuracies(workdir):
    """{resolution: top-1 accuracy} of the run's own evaluation."""
    if not workdir.results.exists():
        raise ValueError(
            "--plot needs the results.json of the run; `python -m rs_keras.evaluate` "
            f"writes it. Received: --workdir={workdir.path}"
        )
    found = json.loads(workdir.results.read_text())["resolutions"]
    return {resolution: numbers["top1"] for resolution, numbers in found.items()}


def _plot(path, report, accuracies):
    from rs_keras import pictures

    curves = {}
    for file in report["files"]:
        api = next((a for a in file["apis"].values() if "error" not in a), None)
        if api is not None:
            curves[file["title"]] = [
                (found["median_ms"], accuracies[size], size)
                for size, found in api["resolutions"].items()
                if size in accuracies
            ]
    machine = report["machine"]
    pictures.accuracy_against_cost(
        path,
        {title: points for title, points in curves.items() if points},
        f"median latency, ms ({next(iter(report['files'][0]['apis']))}, "
        f"threads {machine['threads']}, {machine['processor']})",
    )


if __name__ == "__main__":
    tool_flag_definitions.define_benchmark_tflite_flags()
    config_lib.run(main)
