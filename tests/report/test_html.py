"""Pages that hold any text, and need nothing from elsewhere."""

import re

from rs_keras.report import html
from tests.report import pages

NASTY = "<script>alert('x')</script> & \"quoted\" </td> é 猫 \udce9"


def test_any_text_is_shown_as_it_is():
    text = html.page(
        NASTY,
        html.section("one", NASTY, html.element("p", NASTY, html.element("h3", NASTY))),
        html.table((NASTY, "b"), [(NASTY, 1)]),
        html.photographs([(b"\x89PNG", NASTY)]),
    )
    text.encode("utf-8")  # that of a name that is no text is a question mark
    page = pages.Page(text)
    shown = NASTY.replace("\udce9", "?")
    for tag in ("title", "h2", "h3", "figcaption"):
        assert page.text[tag] == [shown]
    assert page.text["th"] == [shown, "b"] and page.text["td"] == [shown, "1"]
    assert [alt for alt, *_ in page.images] == [shown]


def test_nothing_comes_from_elsewhere_and_phones_and_the_dark_are_thought_of():
    text = html.page("title", html.element("p", "text"))
    page = pages.Page(text)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in (
        page.meta
    )
    (style,) = page.text["style"]
    assert "prefers-color-scheme: dark" in style
    assert not re.search(r"@import|url\(|https?:|//", style)


def test_drawings_are_pictures_with_a_text():
    def draw(path, width):
        path.write_text(f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}'/>")

    text = html.page("title", html.drawn(draw, 7, title="A & B"))
    ((alt, kind, data),) = pages.Page(text).images
    assert (alt, kind) == ("A & B", "data:image/svg+xml") and b"width='7'" in data
