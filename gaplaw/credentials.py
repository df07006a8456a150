"""Where do credentials hide in what people read, and how are they masked? In URLs, and in what a store's client says.

First in the walk: every refusal masks its own message (see `errors`), and whoever shows a place shows
`mask_credentials(place)`.
"""

from __future__ import annotations

import re

MASK = "***"
# The user part of a URL, up to its @. Keys may hold slashes: then a colon without a port says that it is a user part.
# One slash is what a path object leaves of the two.
_USER = re.compile(r"(?:(?<=://)[^/\s'\"<>]*|(?:(?<=://)|(?<=\w:/)(?!/))[^/\s'\"<>:]*:(?!\d+/)[^\s'\"<>]*)(?=@)")
_QUERY = re.compile(r"(://[^\s?'\"<>]*\?)[^\s'\"<>]+")  # tokens and signatures; any name may be one
_FRAGMENT = re.compile(r"(://[^\s#'\"<>]*#)[^\s'\"<>]*=[^\s'\"<>]*")
# What clients call their options: secret=…, 'token': '…'
_OPTION = re.compile(
    r"(?i)(\b\w*(?:secret|password|token|key|credentials?|signature)['\"]?\s*[=:]\s*['\"]?)[^\s,;'\"(){}]+"
)


def mask_credentials(text: object) -> str:
    """The text with the credentials of every URL in it masked: user parts, queries, fragments that assign something."""
    found = _USER.sub(MASK, str(text)) if ":/" in str(text) else str(text)
    return _FRAGMENT.sub(rf"\g<1>{MASK}", _QUERY.sub(rf"\g<1>{MASK}", found)) if "://" in found else found


def has_credentials(url: str) -> bool:
    return mask_credentials(url) != url


def mask_answer(text: str, url: str) -> str:
    """What a store's client said about a URL, masked: it repeats its options, and parts of the URL."""
    user, query = _USER.search(url), _QUERY.search(url)
    parts = user.group().split(":") + [user.group()] if user else []
    parts += [query.group()[query.end(1) - query.start() :]] if query else []
    for part in sorted(filter(None, parts), key=len, reverse=True):
        text = text.replace(part, MASK)
    return _OPTION.sub(rf"\g<1>{MASK}", mask_credentials(text))
