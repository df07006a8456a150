"""What tells the protocols of one table apart? Short labels that say only what differs.

Before view in the walk of the report. A protocol is a text such as `scratch|soft=1|T=2`; rows of different protocols
never share a panel, and a panel is named by the parts that not every protocol has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORDS = (
    (re.compile(r"scratch"), "from scratch"),
    (re.compile(r"prune"), "pruned"),
    (re.compile(r"soft=(\S+)"), r"soft share \1"),
    (re.compile(r"T=(\S+)"), r"temperature \1"),
    (re.compile(r"no-T2"), "no T² factor"),
    (re.compile(r"topk:(\d+)"), r"top-\1 cache"),
    (re.compile(r"sampled:(\d+)"), r"cache of \1 draws"),
)
_CACHE = re.compile(r"(topk|sampled):\d+")


def protocol_labels(protocols: Iterable[str | None]) -> dict[str | None, str]:
    """Each protocol with its short label: empty for a single one, unique among several."""
    known = list(dict.fromkeys(protocols))
    if len(known) < 2:
        return dict.fromkeys(known, "")
    parts = {protocol: (protocol or "").split("|") for protocol in known}
    shared = set.intersection(*(set(own) for own in parts.values()))
    cached = any(_CACHE.fullmatch(part) for own in parts.values() for part in own)
    unsquared = any("no-T2" in own for own in parts.values())
    labels = {}
    for protocol, own in parts.items():
        said = [_words(part) for part in own if part and part not in shared]
        if protocol is not None and unsquared and "no-T2" not in shared and "no-T2" not in own:
            said.append("T² factor")
        if protocol is not None and cached and not any(_CACHE.fullmatch(part) for part in own):
            said.append("live teacher")
        labels[protocol] = ", ".join(said) or _whole(protocol)
    unique = len(set(labels.values())) == len(labels)
    return labels if unique else {protocol: _whole(protocol) for protocol in known}


def _whole(protocol: str | None) -> str:
    return "no protocol stated" if protocol is None else protocol or "empty protocol"


def _words(part: str) -> str:
    for pattern, words in _WORDS:
        if found := pattern.fullmatch(part):
            return found.expand(words)
    return part
