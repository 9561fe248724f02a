"""A page as a reader sees it."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects what a page shows and complains about elements that do not close."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.images, self.tags, self.links, self.attributes, self._open = [], [], [], [], set(), []
        self.elements = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.elements.append(attrs)
        self.attributes |= attrs.keys()
        self.links += [attrs[key] for key in ("src", "href", "xlink:href") if key in attrs]
        if tag == "img":
            self.images.append(attrs["src"])
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.text.append(data.strip())

    @property
    def words(self) -> str:
        return " ".join(filter(None, self.text))
