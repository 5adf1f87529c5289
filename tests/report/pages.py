"""Reading a page strictly: all is closed, and nothing comes from elsewhere."""

import base64
from html import parser
from xml.etree import ElementTree

_EMPTY = {"meta", "img"}
_ALLOWED = _EMPTY | set(
    "html head title style body h1 h2 h3 p nav a section div table thead tbody tr th "
    "td figure figcaption pre ul li".split()
)


class Page(parser.HTMLParser):
    """The parts of a page; AssertionError where it is not well-formed.

    Attributes:
        text: {tag: [text of each element, ...]}.
        rows: of all tables, [[text of each cell, ...], ...].
        images: [(alternative text, kind, bytes), ...].
        ids, links: of sections, and what links name.
    """

    def __init__(self, text):
        super().__init__()
        assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
        self.text, self.images, self.ids, self.links = {}, [], [], []
        self.meta, self.rows, self._open = [], [], []
        self.feed(text)
        self.close()
        assert not self._open
        assert set(self.links) <= set(self.ids) and len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag, attributes):
        assert tag in _ALLOWED, tag
        attributes = dict(attributes)
        assert not any(name.startswith("on") for name in attributes)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "a":
            assert attributes["href"].startswith("#")
            self.links.append(attributes["href"][1:])
        if tag == "img":
            head, data = attributes["src"].split(";base64,")
            data = base64.b64decode(data, validate=True)
            self.images.append((attributes["alt"], head, data))
            if head == "data:image/svg+xml":
                assert ElementTree.fromstring(data).tag.endswith("svg")
            else:
                assert head == "data:image/png" and data.startswith(b"\x89PNG")
        if tag == "meta":
            self.meta.append(attributes)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in _EMPTY:
            self._open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        for tag in set(self._open):
            self.text[tag][-1] += data
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data
