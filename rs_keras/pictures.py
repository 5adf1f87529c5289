"""Pictures of what was measured."""

import itertools
import pathlib

from rs_keras import workdir


def accuracy_against_latency(path, curves, latency):
    """Draws a line for each file.

    Args:
        path: of the .png or .svg file to write.
        curves: {title: [(latency in ms, accuracy 0..1, resolution), ...]}; all have the
            accuracies of one network.
        latency: what kind it is, for the axis.
    """
    drawing, axes = _drawing()
    markers = itertools.cycle("os^Dv<>pP")
    slowest = {}
    for title, points in curves.items():
        latencies = [point[0] for point in points]
        accuracies = [point[1] for point in points]
        axes.plot(latencies, accuracies, marker=next(markers), ms=4, label=title)
        for *place, resolution in points:
            slowest[resolution] = max(slowest.get(resolution, place), place)
    for resolution, place in slowest.items():
        axes.annotate(resolution, place, xytext=(6, -3), textcoords="offset points")
    axes.margins(x=0.1)  # room for the numbers
    axes.set_xlabel(latency)
    axes.set_ylabel("top-1 accuracy of the run")
    _save(drawing, path)


def accuracy_against_resolution(path, curves, title):
    """Draws a line for each network; what it was trained at is marked.

    Args:
        path: of the .png or .svg file to write.
        curves: {title: [(resolution, accuracy 0..1, whether it was trained), ...]}.
        title: what stands above the picture.
    """
    drawing, axes = _drawing()
    for label, points in curves.items():
        points = sorted(points)
        sides = [point[0] for point in points]
        accuracies = [point[1] for point in points]
        trained = [i for i, point in enumerate(points) if point[2]]
        axes.plot(sides, accuracies, marker="o", ms=7, markevery=trained, label=label)
        axes.plot(sides, accuracies, ".", ms=6, color=axes.lines[-1].get_color())
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("resolution in pixels (large dots: trained)")
    axes.set_ylabel("top-1 accuracy")
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
    axes.set_title(f"{title}: % of the images", fontsize=9)
    _write(drawing, path)


def _drawing():
    # Half a second to import, which nobody else needs; without pyplot, no window.
    from matplotlib import figure

    drawing = figure.Figure(figsize=(7, 4.5), layout="constrained")
    return drawing, drawing.subplots()


def _save(drawing, path):
    """Writes a drawing of curves with a grid and a legend."""
    axes = drawing.axes[0]
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)
    _write(drawing, path)


def _write(drawing, path):
    """Writes the file whole or not at all."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    drawing.savefig(temporary, dpi=150, format=path.suffix[1:])
    workdir.rename(temporary, path)
