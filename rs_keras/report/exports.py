"""The files of a network: their sizes, and what exports were found to compute."""

from rs_keras.report import html


def exports(found):
    """A table of all files, and one of each export."""
    rows, tables = [("model.keras", "", f"{found['bytes']:,}")], []
    for export in found["exports"]:
        report = export["report"]
        what = [export["kind"], report.get("layout", ""), report.get("precision", "")]
        if export["older"]:
            what.append("(older than model.keras)")
        rows.append(
            (export["name"], " ".join(filter(None, what)), f"{export['bytes']:,}")
        )
        tables += [html.element("h3", export["name"]), _TABLES[export["kind"]](report)]
    if not tables:
        tables = [html.element("p", "There are no reports of exports.", class_="note")]
    sizes = html.table(("file", "what", "bytes"), rows)
    return html.section("exports", "Sizes and exports", sizes, *tables)


def _tflite(report):
    if report["verification"] == "off":
        return html.element("p", "Not compared with the network.")
    rows = [
        (
            name,
            f"{row['error']:.1e}",
            html.percent(row["agreement_of_all"]),
            html.percent(row["agreement"]),
            f"{row['delegated']}/{row['operators']}",
        )
        for name, row in report["verification"]["signatures"].items()
    ]
    header = (
        "signature",
        "error",
        "same\nclass %",
        "without\nnear-ties %",
        "delegated",
    )
    return html.table(header, rows)


def _saved_model(report):
    rows = []
    for name, row in report["signatures"].items():
        image = "×".join(str(side or "?") for side in row["image"])
        rows.append((name, image, f"{row['error']:.1e}"))
    return html.table(("signature", "image", "error"), rows)


def _packed(report):
    rows = [
        (key, f"{row['largest_difference']:.3g}", html.percent(row["same_class"], 0))
        for key, row in report["logits"].items()
    ]
    return html.table(("pixels", "largest change\nof logits", "same\nclass %"), rows)


_TABLES = {".tflite": _tflite, "SavedModel": _saved_model, "packed": _packed}
