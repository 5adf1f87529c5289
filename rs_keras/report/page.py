"""The report of a run as one HTML page: text, tables and drawings of what was found."""

from rs_keras import pictures
from rs_keras.report import analyses
from rs_keras.report import card
from rs_keras.report import exports
from rs_keras.report import html
from rs_keras.report import results

_FILES = 20  # that were passed over, and are named


def page(found, photographs):
    """The text of the page.

    Args:
        found: of `run_report.of_files`, `of_weights` and `of_images`, together;
            those of weights and images may be missing.
        photographs: {kind: [(bytes of a .png file, class), ...]}; empty for none.
    """
    sections = [
        results.results(found),
        results.comparison(found),
        results.resolutions(found),
        _training(found),
        analyses.hit_miss(found),
        analyses.classes(found),
        analyses.examples(photographs),
        analyses.features(found),
        analyses.batch_norm(found),
        exports.exports(found),
        _flags(found),
    ]
    sections = [section for section in sections if section is not None]
    links = (
        html.element("a", section.findtext("h2"), href=f"#{section.get('id')}")
        for section in sections
    )
    return html.page(
        f"{found['title']}: report",
        html.element("h1", found["title"]),
        html.element("p", _summary(found)),
        html.element("nav", *links),
        *sections,
    )


def _summary(found):
    flags, values = found["flags"], found["results"]
    rows = list(values["resolutions"].items())
    text = (
        f"{flags['model']}, --method={flags['method']}, on {card.dataset(flags)}: "
        f"{len(values['classes'])} classes, {values['parameters']:,} parameters."
    )
    (largest, high), (smallest, low) = rows[0], rows[-1]
    if low["macs"] < high["macs"]:
        text += (
            f" At {largest} pixels {html.percent(high['top1'])}% top-1; at {smallest} "
            f"{html.percent(low['top1'])}%, for "
            f"{html.percent(low['macs'] / high['macs'], 0)}% of the multiply-adds."
        )
    return text


def _training(found):
    run, metrics = found["training"], found["metrics"]
    text = f"{card.course(run)}; saved on {run['date']} by Keras {run['keras']}."
    if run["skipped_steps"]:
        text += f" Steps that were not finite, and left out: {run['skipped_steps']:,}."
    children = [html.element("p", text)]
    if metrics:
        names = {"training": "loss", "validation": "val_loss"}
        keys = (*found["results"]["resolutions"], "ensemble")
        names_of_tops = {key: f"val_top1_{key}" for key in keys}
        losses, tops = (
            {
                title: [line[name] for line in metrics]
                for title, name in chosen.items()
                if all(name in line for line in metrics)
            }
            for chosen in (names, names_of_tops)
        )
        title = "Loss, and accuracy on validation images, after each epoch"
        epochs = [line["epoch"] for line in metrics]
        children.append(
            html.drawn(pictures.training, epochs, losses, tops, title=title)
        )
    if found.get("alpha"):
        title = "Share of each resolution in the ensemble"
        children.append(html.drawn(pictures.alpha, found["alpha"], title=title))
    return html.section("training", "Training", *children)


def _flags(found):
    children = [_lines(f"--{name}={value}" for name, value in found["flags"].items())]
    skipped = found["results"]["skipped_images"]
    if skipped:
        shown = [f"{one['file']}: {one['reason']}" for one in skipped[:_FILES]]
        if skipped[_FILES:]:
            shown.append(f"and {len(skipped) - _FILES:,} more, in results.json")
        title = f"Files that were passed over: {len(skipped):,}"
        children += [html.element("h3", title), _lines(shown)]
    if found["left_out"]:
        reasons = (html.element("li", reason) for reason in found["left_out"])
        children += [html.element("h3", "Left out"), html.element("ul", *reasons)]
    return html.section("flags", "Flags", *children)


def _lines(lines):
    return html.element("pre", "\n".join(lines))
