"""The files of a network: their sizes, and what exports were found to compute."""

from rs_keras import run_facts
from rs_keras.report import html


def exports(found):
    """A table of all files, and one of each export."""
    rows, tables = [("model.keras", "", f"{found['bytes']:,}")], []
    for export in found["exports"]:
        report, kind = export["report"], export["kind"]
        what = [kind, report.get("layout", ""), report.get("precision", "")]
        if export["older"]:
            what.append("(written before model.keras)")
        rows.append(
            (export["name"], " ".join(filter(None, what)), f"{export['bytes']:,}")
        )
        tables += [html.element("h3", export["name"])]
        tables += _TABLES[kind](report, run_facts.rows(kind, report))
    if not tables:
        tables = [html.element("p", "There are no reports of exports.", class_="note")]
    sizes = html.table(("file", "what", "bytes"), rows)
    return html.section("exports", "Sizes and exports", sizes, *tables)


def _tflite(report, rows):
    checked = report["verification"]
    if checked == "off":
        return [html.element("p", "Not compared with the network.")]
    cells = []
    for name, row in rows.items():
        without = html.percent(row["agreement"])
        if row.get("inconclusive"):
            without = f"({without}: {row['classes']} classes)"
        ran = f"{row['delegated']}/{row['operators']}"
        error, all_of_them = (
            f"{row['error']:.1e}",
            html.percent(row["agreement_of_all"]),
        )
        cells.append((name, error, all_of_them, row.get("near_ties", ""), without, ran))
    note = (
        f"Compared with the network on {checked.get('images', '?')} images of each "
        "size: the error of the probabilities; the images that have its class; the "
        "near-ties, which rounding decides, and those that have its class without them "
        "(in brackets: too few classes to say); the operators that XNNPACK runs."
    )
    header = (
        "signature",
        "error",
        "same\nclass %",
        "near-\nties",
        "without\nthem %",
        "XNN-\nPACK",
    )
    return [html.element("p", note, class_="note"), html.table(header, cells)]


def _saved_model(report, rows):
    cells = []
    for name, row in rows.items():
        image = "×".join(str(side or "?") for side in row["image"])
        cells.append((name, image, f"{row['error']:.1e}"))
    note = "The relative error of the logits, against the network."
    table = html.table(("signature", "image", "error"), cells)
    return [html.element("p", note, class_="note"), table]


def _packed(report, rows):
    cells = [
        (key, f"{row['largest_difference']:.3g}", html.percent(row["same_class"], 0))
        for key, row in rows.items()
    ]
    note = "Against the network, on a few generated images."
    table = html.table(("pixels", "largest change\nof logits", "same\nclass %"), cells)
    return [html.element("p", note, class_="note"), table]


_TABLES = {".tflite": _tflite, "SavedModel": _saved_model, "packed": _packed}
