"""The papers' analyses as sections of a report; None where one was not made."""

from rs_keras import pictures
from rs_keras.report import html


def hit_miss(found):
    """What one resolution gets right and another does not (RS-Nets, Table 1)."""
    if not found.get("hit_miss"):
        return None
    drawings = (
        html.drawn(pictures.hit_miss, shares, title, title=f"Hits and misses: {title}")
        for title, shares in found["hit_miss"].items()
    )
    text = html.element("p", "Right at one resolution (columns), wrong at another.")
    return html.section("hit_miss", "Hits and misses", text, *drawings)


def classes(found):
    """The accuracy of each class at both ends."""
    if "classes" not in found:
        return None
    large, small = found["ends"]
    title = f"Accuracy of each class at {large} and at {small} pixels"
    drawing = html.drawn(
        pictures.class_changes, found["classes"], found["ends"], title=title
    )
    counts = " and ".join(f"{n:,} {kind}" for kind, n in found["only_one"].items())
    text = f"Images that are right at one end alone: {counts} pixels."
    if len(found["classes"]) > pictures.CLASSES:
        text += (
            f" Of {len(found['classes']):,} classes the {pictures.CLASSES} are drawn "
            "that change most, either way."
        )
    return html.section("classes", "Classes", html.element("p", text), drawing)


def examples(photographs):
    """Images that only one end gets right."""
    if not photographs:
        return None
    children = []
    for kind, images in photographs.items():
        shown = html.photographs(images) if images else html.element("p", "None.")
        children += [html.element("h3", f"Right {kind} pixels"), shown]
    return html.section("examples", "Examples", *children)


def features(found):
    """How features differ between training and testing (RS-Nets, Fig. 3)."""
    if "features" not in found:
        return None
    rows = found["features"]
    text = (
        "What global average pooling returns for the validation images, cropped at "
        "random as in training, or cut from the centre."
    )
    title = "Distribution of pooled features"
    drawing = html.drawn(pictures.cumulative, rows, found["shares"], title=title)
    gaps = [(key, f"{row['gap']:.4f}") for key, row in rows.items()]
    table = html.table(("pixels", "largest gap of\nthe two curves"), gaps)
    return html.section("features", "Features", html.element("p", text), drawing, table)


def batch_norm(found):
    """What batch normalization learnt (RS-Nets, Fig. 6)."""
    if "batch_norm" not in found:
        return None
    title = "Means over the channels, by layer and resolution"
    rows = found["batch_norm"]["rows"]
    drawing = html.drawn(pictures.batch_norm, rows, title=title)
    return html.section("batch_norm", "Batch normalization", drawing)
