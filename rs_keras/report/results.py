"""How accurate a network is: at each resolution, beside others, and in between."""

from rs_keras import pictures
from rs_keras.report import card
from rs_keras.report import html


def results(found):
    """What results.json says, and accuracy against cost (RS-Nets, Fig. 1)."""
    values = found["results"]
    rows = dict(values["resolutions"])
    highest = max(row["macs"] for row in rows.values())
    several = len(rows) > 1
    if values["ensemble"] and several:
        rows["ensemble"] = values["ensemble"]
    cells = [
        (
            key,
            html.percent(row["top1"]),
            "–" if row["top5"] is None else html.percent(row["top5"]),
            html.percent(row["mean_class"]),
            f"{row['macs'] / 1e6:,.1f}" if "macs" in row else "",
            html.percent(row["macs"] / highest, 0) if "macs" in row else "",
        )
        for key, row in rows.items()
    ]
    header = ("pixels", "top-1", "top-5", "class\nmean", "million\nMACs", "cost")
    notes = [
        "Accuracies in percent; class mean: that of the accuracies of all classes; "
        "MACs: multiply-adds; cost: those of the most costly are 100."
    ]
    if found["images"]:
        notes.append(
            f"{found['images']['train']:,} training and {found['images']['val']:,} "
            "validation images."
        )
    if values["ensemble"] and several:
        shares = ", ".join(f"{share:.2f}" for share in values["alpha"])
        notes.append(f"The ensemble weighs its branches by {shares}.")
    children = [
        html.table(header, cells),
        html.element("p", " ".join(notes), class_="note"),
    ]
    if found["curves"]:
        costs = {
            title: [(p["macs"] / 1e6, p["top1"], p["resolution"]) for p in points]
            for title, points in found["curves"].items()
        }
        axis, title = "million multiply-adds", "Accuracy against multiply-adds"
        draw = pictures.accuracy_against_cost
        children.append(html.drawn(draw, costs, axis, title=title))
    return html.section("results", "Results", *children)


def comparison(found):
    """Beside other runs; None without any."""
    curves = found["curves"]
    if len(curves) < 2:
        return None
    sides = {p["resolution"] for points in curves.values() for p in points}
    sides = sorted(sides, reverse=True)
    rows = []
    for title, points in curves.items():
        tops = {p["resolution"]: html.percent(p["top1"]) for p in points}
        rows.append((title, *(tops.get(side, "–") for side in sides)))
    children = [html.table(("top-1 % at", *map(str, sides)), rows)]
    for title, paths in found["members"].items():
        if len(paths) > 1:
            text = f"{title}: {', '.join(paths)}."
            children.append(html.element("p", text, class_="note"))
    if found["differences"]:
        drawn = {
            title: [(p["resolution"], p["difference"], True) for p in points]
            for title, points in found["differences"].items()
        }
        axis = "points above individual networks"
        title = "Interaction effects: what training together changes"
        draw = pictures.accuracy_against_resolution
        children.append(html.drawn(draw, drawn, axis, title=title))
    return html.section("comparison", "Comparison", *children)


def resolutions(found):
    """Denser resolutions (RS-Nets, Fig. 4); None if they were not tested."""
    if "dense" not in found:
        return None
    text = card.elsewhere(found["flags"])
    curves = {**found["curves"], found["title"]: found["dense"]}
    drawn = {
        title: [(p["resolution"], p["top1"], p["trained"]) for p in points]
        for title, points in curves.items()
    }
    title = "Accuracy at trained and untrained resolutions"
    drawing = html.drawn(pictures.accuracy_against_resolution, drawn, title=title)
    name = "Other resolutions"
    return html.section("resolutions", name, html.element("p", text), drawing)
