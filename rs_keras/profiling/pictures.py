"""Pictures of what was measured."""

import itertools


def accuracy_against_latency(path, curves, latency):
    """Draws a line for each file.

    Args:
        path: of the .png or .svg file to write.
        curves: {title: [(latency in ms, accuracy 0..1, resolution), ...]}; all have the
            accuracies of one network.
        latency: what kind it is, for the axis.
    """
    # Half a second to import, which nobody else needs; without pyplot, no window.
    from matplotlib import figure

    drawing = figure.Figure(figsize=(7, 4.5), layout="constrained")
    axes = drawing.subplots()
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
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)
    drawing.savefig(path, dpi=150)
