"""What the tests ask of a page: its text by section, images, links, and whether every element is closed."""

from html.parser import HTMLParser

VOID = {"meta", "img", "source", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects what the tests ask: text by section, images, links, and whether every element is closed."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.ids, self.images, self.links, self.addresses = [], [], [], [], []
        self.text: dict[str, str] = {}
        self.headings: list[int] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag not in VOID:
            self.open.append((tag, given.get("id")))
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "img":
            self.images.append(given)
        if tag == "a":
            self.links.append(given["href"])
        if tag in ("h1", "h2", "h3"):
            self.headings.append(int(tag[1]))
        self.addresses += [given[name] for name in ("src", "href", "srcset") if name in given]

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for tag, name in self.open:
            if tag == "section" or tag == "header":
                key = name or tag
                self.text[key] = self.text.get(key, "") + data
