"""One table of several runs: python -m tools.compare_runs --runs=DIR [--json=FILE]

Every folder below DIR with a results.json is a run. Runs whose folders differ only in
a trailing `-seedN` are one row: mean and half range over the seeds, in percent. A
trailing `-RESOLUTION` joins individual networks in one row, each cell from its own
network. So `photos_single-112-seed0` fills the cell 112 of the row `photos_single`.
"""

import json
import pathlib
import re

from rs_keras import config as config_lib
from rs_keras import tool_flag_definitions
from rs_keras import workdir as workdir_lib

METRICS = ("top1", "mean_class")
_NAME = re.compile(r"^(?P<row>.+?)(?:-(?P<resolution>\d+))?(?:-seed(?P<seed>\d+))?$")


def main():
    with config_lib.mistakes():
        config_lib.require("runs")
        config_lib.check_json()
        values = config_lib.values()
        root = pathlib.Path(values.runs)
        if not root.is_dir():
            raise ValueError(f"--runs must be a directory. Received: --runs={root}")
        paths = sorted(root.glob("*/results.json"))
        if not paths:
            raise ValueError(
                f"--runs must hold folders with results.json. Received: --runs={root}"
            )
        rows = collect({p.parent.name: json.loads(p.read_text()) for p in paths})
        print(table(rows))
        if values.json:
            workdir_lib.write_json(values.json, rows)


def collect(results):
    """{folder name: results} -> {row: {column: {metric: [value of each seed]}}}.

    Columns are resolutions (as text) and "ensemble"; "alpha" of a row is a list of
    one list for each seed.
    """
    rows = {}
    for name, result in sorted(results.items()):
        match = _NAME.match(name)
        row = rows.setdefault(match["row"], {})
        columns = dict(result["resolutions"])
        if len(result["alpha"]) > 1 and result["ensemble"]:
            columns["ensemble"] = result["ensemble"]
            row.setdefault("alpha", []).append(result["alpha"])
        for column, numbers in columns.items():
            cell = row.setdefault(column, {metric: [] for metric in METRICS})
            for metric in METRICS:
                cell[metric].append(numbers[metric])
    return rows


def table(rows):
    """The rows as a Markdown table, top-1 / mean over the classes, in percent."""
    columns = {
        c for row in rows.values() for c in row if c not in ("alpha", "ensemble")
    }
    columns = sorted(columns, key=lambda c: -int(re.match(r"\d+", c)[0]))
    if any("ensemble" in row for row in rows.values()):
        columns.append("ensemble")
    lines = [
        "| run | " + " | ".join(columns) + " | weights in the ensemble |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name, row in rows.items():
        cells = [_cell(row[c]) if c in row else "" for c in columns]
        shares = [_mean(values) for values in zip(*row.get("alpha", ()), strict=True)]
        shares = " ".join(f"{share:.2f}" for share in shares)
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {shares} |")
    return "\n".join(lines)


def _cell(cell):
    return " / ".join(_spread(cell[metric]) for metric in METRICS)


def _spread(values):
    text = f"{100 * _mean(values):.1f}"
    if len(values) > 1:
        text += f" ± {50 * (max(values) - min(values)):.1f}"
    return text


def _mean(values):
    return sum(values) / len(values)


if __name__ == "__main__":
    tool_flag_definitions.define_compare_flags()
    config_lib.run(main)
