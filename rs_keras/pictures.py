"""Pictures of what was measured."""

import io
import itertools
import pathlib
import warnings

from rs_keras import workdir
from rs_keras.data import folder

# Inches: on a phone, letters of 10 points are as large as those of the text around.
_WIDTH = 5
# Classes that are drawn of many: those that change most.
CLASSES = 40


def accuracy_against_cost(path, curves, cost, accuracy=None):
    """Draws a line for each network or file.

    Args:
        path: of the .png or .svg file to write.
        curves: {title: [(cost, accuracy 0..1, resolution), ...]}.
        cost: what it is, with its unit, for the axis.
        accuracy: what is drawn instead, for the other axis.
    """
    drawing, axes = _drawing()
    markers = itertools.cycle("os^Dv<>pP")
    dearest = {}
    for title, points in curves.items():
        costs = [point[0] for point in points]
        accuracies = [point[1] for point in points]
        axes.plot(costs, accuracies, marker=next(markers), ms=4, label=_text(title))
        for *place, resolution in points:
            dearest[resolution] = max(dearest.get(resolution, place), place)
    for resolution, place in dearest.items():
        axes.annotate(resolution, place, xytext=(6, -3), textcoords="offset points")
    axes.margins(x=0.1)  # room for the numbers
    axes.set_xlabel(cost)
    axes.set_ylabel(accuracy or "top-1 accuracy")
    _save(drawing, path)


def accuracy_against_resolution(path, curves, accuracy=None):
    """Draws a line for each network; what it was trained at is marked.

    Args:
        path: of the .png or .svg file to write.
        curves: {title: [(resolution, accuracy 0..1, whether it was trained), ...]}.
        accuracy: what is drawn instead, for the axis.
    """
    drawing, axes = _drawing()
    for label, points in curves.items():
        points = sorted(points)
        sides = [point[0] for point in points]
        accuracies = [point[1] for point in points]
        trained = [i for i, point in enumerate(points) if point[2]]
        axes.plot(
            sides, accuracies, marker="o", ms=7, markevery=trained, label=_text(label)
        )
        axes.plot(sides, accuracies, ".", ms=6, color=axes.lines[-1].get_color())
    axes.set_xlabel("resolution in pixels (large dots: trained)")
    axes.set_ylabel(accuracy or "top-1 accuracy")
    _save(drawing, path)


def hit_miss(path, shares, title):
    """Draws what one resolution gets right and another one does not.

    Args:
        path: of the .png or .svg file to write.
        shares: {miss: {hit: share 0..1}}, without the diagonal.
        title: what stands above the picture.
    """
    drawing, axes = _drawing()
    keys = list(shares)
    rows = [[100 * shares[a].get(b, float("nan")) for b in keys] for a in keys]
    axes.imshow(rows, cmap="YlOrRd", vmin=0)
    darkest = max(max(row.values()) for row in shares.values()) * 60
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            if x != y:
                color = "white" if value > darkest else "black"
                axes.text(x, y, f"{value:.1f}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(keys)), keys)
    axes.set_yticks(range(len(keys)), keys)
    axes.set_xlabel("right at")
    axes.set_ylabel("wrong at")
    axes.set_title(f"{_text(title)}: % of the images", fontsize=9)
    _write(drawing, path)


def batch_norm(path, rows):
    """Draws what batch normalization learnt: a panel for each parameter.

    Args:
        path: of the .png or .svg file to write.
        rows: {resolution: {"gamma": [of each layer], "beta", "mean", "variance"}}.
    """
    drawing, panels = _drawing(2, 2)
    names = ("gamma", "beta", "mean", "variance")
    for axes, name in zip(panels.flat, names, strict=True):
        for number, (key, row) in enumerate(rows.items()):
            color = _shade(number, len(rows))
            layers = range(1, len(row[name]) + 1)
            axes.plot(layers, row[name], marker=".", lw=1, color=color, label=key)
        axes.set_title(name, fontsize=9)
        axes.grid(visible=True, alpha=0.3)
    for axes in panels[1]:
        axes.set_xlabel("layer")
    lines, labels = panels[0, 0].get_legend_handles_labels()
    drawing.legend(lines, labels, loc="outside lower center", ncols=5, fontsize=7)
    _write(drawing, path)


def cumulative(path, found, shares):
    """Draws how features are distributed, prepared as for training and for testing.

    Args:
        path: of the .png or .svg file to write.
        found: {resolution: {"train": [value below which each share lies], "test"}}.
        shares: (K,) in 0..1.
    """
    drawing, axes = _drawing()
    for number, (key, row) in enumerate(found.items()):
        color = _shade(number, len(found))
        axes.plot(row["train"], shares, "--", color=color, label=f"{key} (train)")
        axes.plot(row["test"], shares, color=color, label=f"{key} (test)")
    axes.set_xlabel("pooled feature")
    axes.set_ylabel("share of the features below")
    axes.set_xlim(right=max(row["test"][-2] for row in found.values()))
    _save(drawing, path)


def alpha(path, shares):
    """Draws the share of each branch in the ensemble over the epochs.

    Args:
        path: of the .png or .svg file to write.
        shares: {branch: {epoch, as text: share 0..1}}.
    """
    drawing, axes = _drawing()
    for number, (key, row) in enumerate(shares.items()):
        color = _shade(number, len(shares))
        axes.plot([int(epoch) for epoch in row], row.values(), color=color, label=key)
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylabel("share in the ensemble")
    _save(drawing, path)


def training(path, epochs, losses, accuracies):
    """Draws how a run went: its losses, and below them its accuracies.

    Args:
        path: of the .png or .svg file to write.
        epochs: of the points.
        losses: {title: [of each epoch]}.
        accuracies: {title: [of each epoch]}; the titles begin with resolutions.
    """
    drawing, (above, below) = _drawing(2, 1, sharex=True)
    for title, values in losses.items():
        above.plot(epochs, values, label=_text(title))
    for number, (title, values) in enumerate(accuracies.items()):
        color = _shade(number, len(accuracies))
        below.plot(epochs, values, color=color, label=_text(title))
    above.set_ylabel("loss")
    below.set_ylabel("top-1 accuracy")
    below.set_xlabel("epoch")
    below.locator_params(axis="x", integer=True)
    for axes in (above, below):
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=8)
    _write(drawing, path)


def class_changes(path, changes, ends):
    """Draws the accuracy of each class at the largest and the smallest resolution.

    Args:
        path: of the .png or .svg file to write.
        changes: {class: {"largest", "smallest"}}, from the bottom to the top; of many
            classes the first and the last are drawn.
        ends: the two resolutions.
    """
    if len(changes) > CLASSES:
        rows = list(changes.items())
        changes = dict(rows[: CLASSES // 2] + rows[-CLASSES // 2 :])
    drawing, axes = _drawing(height=1 + 0.18 * len(changes))
    places = range(len(changes))
    for place, row in zip(places, changes.values(), strict=True):
        axes.plot(
            [row["largest"], row["smallest"]], [place, place], color="0.7", zorder=1
        )
    for number, key in enumerate(("largest", "smallest")):
        values = [row[key] for row in changes.values()]
        color = _shade(number, 2)
        axes.scatter(values, places, s=18, color=color, label=ends[number])
    axes.set_yticks(places, map(_text, changes), fontsize=7)
    axes.set_xlabel("accuracy of the class")
    _save(drawing, path)


def examples(path, rows):
    """Draws images in rows.

    Args:
        path: of the .png or .svg file to write.
        rows: {what they have in common: [(image (H, W, 3) uint8, its class), ...]}.
    """
    columns = max(1, *map(len, rows.values()))
    drawing, panels = _drawing(
        len(rows), columns, squeeze=False, height=1.3 * len(rows)
    )
    for line, (title, images) in zip(panels, rows.items(), strict=True):
        for axes in line:
            axes.axis("off")
        for axes, (image, name) in zip(line, images, strict=False):
            axes.imshow(image)
            axes.set_title(_text(name), fontsize=6)
        line[0].text(0, -0.15, title, transform=line[0].transAxes, fontsize=8)
    _write(drawing, path)


def png(image):
    """The bytes of a .png file of an image (H, W, 3) uint8."""
    from matplotlib import image as image_lib

    buffer = io.BytesIO()
    image_lib.imsave(buffer, image, format="png")
    return buffer.getvalue()


def _shade(number, count):
    """The colour of one of several resolutions, from dark (large) to light.

    Neither end is lost on white paper, or on black where the picture is inverted.
    """
    from matplotlib import colormaps

    return colormaps["plasma"](0.05 + 0.6 * number / max(count - 1, 1))


def _text(name):
    """A name as matplotlib shows it: no formula, no hidden curve, no odd bytes."""
    text = folder.printable(name).replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text


def _drawing(*grid, height=3.6, **options):
    # Half a second to import, which nobody else needs; without pyplot, no window.
    from matplotlib import figure

    drawing = figure.Figure(figsize=(_WIDTH, height), layout="constrained")
    return drawing, drawing.subplots(*grid, **options)


def _save(drawing, path):
    """Writes a drawing of curves with a grid and a legend."""
    axes = drawing.axes[0]
    axes.grid(visible=True, alpha=0.3)
    if len(axes.get_legend_handles_labels()[1]) > 5:  # they would hide the curves
        drawing.legend(loc="outside lower center", ncols=3, fontsize=8)
    else:
        axes.legend(fontsize=8)
    _write(drawing, path)


def _write(drawing, path):
    """Writes the file whole or not at all."""
    import matplotlib

    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    # Text stays text in an .svg: the viewer's fonts have letters that ours lack.
    style = matplotlib.rc_context({"svg.fonttype": "none"})
    with style, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        drawing.savefig(temporary, dpi=150, format=path.suffix[1:])
    workdir.rename(temporary, path)
