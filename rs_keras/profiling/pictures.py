"""Pictures of what was measured."""

import itertools


def accuracy_against_latency(path, curves, latency):
    """Draws a line for each network file.

    Args:
        path: of the .png or .svg file to write.
        curves: {title: [(latency in ms, accuracy 0..1, label of the point), ...]}.
        latency: what kind it is, for the axis.
    """
    # Some 0.3 s to import, which nobody else needs. Without pyplot there is no window.
    from matplotlib import figure

    drawing = figure.Figure(figsize=(7, 4.5), layout="constrained")
    axes = drawing.subplots()
    markers = itertools.cycle("os^Dv<>pP")
    for title, points in curves.items():
        latencies = [point[0] for point in points]
        accuracies = [point[1] for point in points]
        axes.plot(latencies, accuracies, marker=next(markers), ms=4, label=title)
        for *place, label in points:
            axes.annotate(
                label,
                place,
                xytext=(3, -9),
                textcoords="offset points",
                fontsize=7,
                color="gray",
            )
    axes.set_xscale("log")
    axes.set_xlabel(latency)
    axes.set_ylabel("top-1 accuracy of the run")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    drawing.savefig(path, dpi=150)
