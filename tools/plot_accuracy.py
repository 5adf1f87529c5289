"""Accuracies of several networks in one picture: ... --curve=TITLE=PATH[,PATH...]

Against the resolution (RS-Nets, Fig. 4: tested at denser resolutions) or against
multiply-adds (Fig. 1). A PATH is a workdir with a finished run, or a file that
`python -m rs_keras.evaluate --json=FILE` wrote. Several of them make one curve: of
individual networks each gives its own resolution; where several give the same one, as
runs of several seeds do, it is their mean. With --relative_to=PATH[,PATH...] it is the
difference to networks that were trained individually (Fig. 5: interaction effects).
"""

from rs_keras import config as config_lib
from rs_keras import pictures
from rs_keras import tool_flag_definitions
from rs_keras import workdir as workdir_lib
from rs_keras.evaluation import curves as curves_lib


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
            curves[title] = _curve(paths)

        if values.relative_to:
            base = _curve(values.relative_to)
            curves = {
                title: curves_lib.differences(found, base)
                for title, found in curves.items()
            }

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


def _curve(paths):
    return curves_lib.points([curves_lib.read(path) for path in paths.split(",")])


def console():
    tool_flag_definitions.define_plot_flags()
    config_lib.run(main)


if __name__ == "__main__":
    console()
