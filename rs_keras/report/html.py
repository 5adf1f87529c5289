"""A self-contained HTML page, readable on a phone and in the dark.

It has no script and needs no network.

Pages are trees of `xml.etree` elements, which escape every text that is put in.
"""

import base64
import pathlib
import tempfile
from xml.etree import ElementTree

# Pictures are drawn in dark lines on white; in the dark they are inverted, and turned
# around the colour wheel, so that red stays red. Photographs are not.
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1a1a1a; --faint: #666;
  --line: #ddd; --accent: #0b6bcb; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #191919; --ink: #e8e8e8; --faint: #a0a0a0; --line: #3a3a3a;
    --accent: #6cb2ff; }
  img.drawing { filter: invert(0.9) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.5rem; border-top: 1px solid var(--line);
  padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 0.5rem; }
p { max-width: 42rem; margin: 0.5rem 0; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; font-size: 0.9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
  font-size: 0.9rem; margin: 0.5rem 0; }
th, td { padding: 0.25rem 0.6rem 0.25rem 0; text-align: right; vertical-align: bottom;
  border-bottom: 1px solid var(--line); overflow-wrap: normal; }
th:first-child, td:first-child { text-align: left; }
td { white-space: nowrap; }
th { color: var(--faint); font-weight: 600; white-space: pre; }
figure { margin: 1rem 0; }
img.drawing { display: block; width: 100%; max-width: 40rem; height: auto; }
figcaption, .note { color: var(--faint); font-size: 0.85rem; max-width: 42rem; }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(5rem, 1fr));
  gap: 0.6rem; max-width: 44rem; }
.photos figure { margin: 0; }
.photos img { width: 100%; height: auto; display: block; }
@media (max-width: 26rem) { table { font-size: 0.8rem; }
  th, td { padding-right: 0.4rem; } }
pre { white-space: pre-wrap; word-break: break-all; font-size: 0.8rem; columns: 17rem;
  margin: 0.5rem 0; }
"""


def element(tag, *children, **attributes):
    """An element; children are texts and elements, `class_` is the attribute class."""
    found = ElementTree.Element(
        tag, {name.rstrip("_"): str(value) for name, value in attributes.items()}
    )
    for child in children:
        if isinstance(child, ElementTree.Element):
            found.append(child)
        elif len(found):
            found[-1].tail = (found[-1].tail or "") + str(child)
        else:
            found.text = (found.text or "") + str(child)
    return found


def table(header, rows):
    """A table that scrolls by itself where it is wider than the screen.

    Args:
        header: text of each column, of one line or more.
        rows: of each row, a text for each column.
    """

    def line(tag, cells):
        return element("tr", *(element(tag, cell) for cell in cells))

    body = element("tbody", *(line("td", row) for row in rows))
    found = element("table", element("thead", line("th", header)), body)
    return element("div", found, class_="scroll", tabindex="0")


def section(name, title, *children):
    """A part of the page that links lead to."""
    return element("section", element("h2", title), *children, id=name)


def drawn(draw, *values, title):
    """A figure of what a function of `pictures` draws.

    Args:
        draw: function of a path, and of the values.
        *values: for the function.
        title: what it shows.
    """
    with tempfile.TemporaryDirectory(prefix="rs_keras.") as folder:
        path = pathlib.Path(folder) / "drawing.svg"
        draw(path, *values)
        source = _data("image/svg+xml", path.read_bytes())
    image = element("img", src=source, alt=title, class_="drawing")
    return element("figure", image, element("figcaption", title))


def photographs(images):
    """Small photographs in as many columns as there is room for.

    Args:
        images: [(bytes of a .png file, caption), ...].
    """
    return element(
        "div",
        *(
            element(
                "figure",
                element("img", src=_data("image/png", png), alt=caption),
                element("figcaption", caption),
            )
            for png, caption in images
        ),
        class_="photos",
    )


def page(title, *children):
    """The text of a page."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", _STYLE),
    )
    whole = element("html", head, element("body", *children), lang="en")
    text = ElementTree.tostring(whole, encoding="unicode", method="html")
    # Names of files may hold bytes that are no text.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return f"<!DOCTYPE html>\n{text}\n"


def percent(share, digits=1):
    return f"{100 * share:.{digits}f}"


def _data(kind, content):
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
