"""Accuracies of several networks in one picture: ... --curve=TITLE=PATH[,PATH...]

Against the resolution (RS-Nets, Fig. 4: tested at denser resolutions) or against
multiply-adds (Fig. 1). A PATH is a workdir with a finished run, or a file that
`python -m rs_keras.evaluate --json=FILE` wrote. Several of them make one curve: of
individual networks each gives its own resolution; where several give the same one, as
runs of several seeds do, it is their mean. With --relative_to=PATH[,PATH...] it is the
difference to networks that were trained individually (Fig. 5: interaction effects).
"""

import json
import pathlib

from rs_keras import config as config_lib
from rs_keras import pictures
from rs_keras import tool_flag_definitions
from rs_keras import workdir as workdir_lib


def main():
    with config_lib.mistakes():
        config_lib.require("plot")
        config_lib.check_json()
        config_lib.check_plot()
        values = config_lib.values()
        if not values.curve:
            raise ValueError("--curve is needed. Received: no --curve")
        curves = {}
        for text in values.curve:
            title, equals, paths = text.partition("=")
            if not equals or not title or not paths or title in curves:
                raise ValueError(
                    "--curve must be TITLE=PATH[,PATH...], each with another title. "
                    f"Received: --curve={text}"
                )
            curves[title] = points([read(path) for path in paths.split(",")])

        if values.relative_to:
            paths = values.relative_to.split(",")
            base = points([read(path) for path in paths])
            curves = {title: differences(c, base) for title, c in curves.items()}

        name = "difference" if values.relative_to else "top1"
        what = "points above individual networks" if values.relative_to else None
        if values.against == "resolution":
            drawn = {
                title: [(p["resolution"], p[name], p["trained"]) for p in found]
                for title, found in curves.items()
            }
            pictures.accuracy_against_resolution(values.plot, drawn, what)
        else:
            drawn = {
                title: [(p["macs"] / 1e6, p[name], p["resolution"]) for p in found]
                for title, found in curves.items()
            }
            cost = "million multiply-adds"
            pictures.accuracy_against_cost(values.plot, drawn, cost, what)
        if values.json:
            workdir_lib.write_json(values.json, {"curves": curves})
    written = [path for path in (values.plot, values.json) if path]
    print(f"Written: {', '.join(written)}")


def read(path):
    """The results in a workdir or in a file; ValueError where there are none."""
    path = pathlib.Path(path)
    if path.is_dir():
        workdir = workdir_lib.Workdir(path)
        workdir.trained_model()
        path = workdir.results
    try:
        found = json.loads(path.read_text("utf-8"))
        for row in found["resolutions"].values():
            row["top1"], row["macs"]
        return found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "A curve needs results.json of a run, or what `evaluate --json` wrote. "
            f"Received: {path}"
        ) from error


def points(results):
    """One curve of several results, from the largest resolution to the smallest.

    Returns:
        List of {"resolution", "top1", "macs", "trained": whether each network was
        trained at it, "networks": how many they are}.
    """
    rows = {}
    for found in results:
        for key, row in found["resolutions"].items():
            if not key.isdigit():
                raise ValueError(
                    "A curve needs networks of several resolutions. "
                    f"Received: one of several views, {key}"
                )
            trained = key not in found.get("untrained", {})
            rows.setdefault(int(key), []).append((row["top1"], row["macs"], trained))
    curve = []
    for resolution, same in sorted(rows.items(), reverse=True):
        tops, macs, trained = zip(*same, strict=True)
        if len(set(macs)) > 1:
            raise ValueError(
                "The networks of one curve must have the same multiply-adds at a "
                f"resolution. Received: {sorted(set(macs))} at {resolution}"
            )
        curve.append(
            {
                "resolution": resolution,
                "top1": sum(tops) / len(tops),
                "macs": macs[0],
                "trained": all(trained),
                "networks": len(tops),
            }
        )
    return curve


def differences(curve, base):
    """A curve whose points have a "difference" to those of another, in points."""
    tops = {point["resolution"]: point["top1"] for point in base}
    missing = [p["resolution"] for p in curve if p["resolution"] not in tops]
    if missing:
        raise ValueError(
            "--relative_to must have every resolution of the curves. "
            f"Received: none of {missing[0]}, but of {tuple(tops)}"
        )
    return [
        {**p, "difference": 100 * (p["top1"] - tops[p["resolution"]])} for p in curve
    ]


def console():
    tool_flag_definitions.define_plot_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()
