"""The paths of the service."""

from __future__ import annotations

import re

PAGE, DOCS, DESCRIPTION = "/", "/docs", "/openapi.json"
ALIVE, READY, METRICS = "/healthz", "/readyz", "/metrics"
ALONE = "/v1"
"""Below which is what belongs to an index that is served alone."""
INDICES = "/v1/indices"
"""The list of several indices."""
NAMED = f"{INDICES}/{{name}}"
"""Below which is what belongs to one of these."""
QUERY, INDEX, REGION = "/query", "/index", "/region"
REGION_MASK, REGION_PROPOSAL, REGION_PICTURE = (
    f"{REGION}/{name}" for name in ("mask", "proposal", "picture")
)
HISTORY, HISTORY_CSV = "/history", "/history.csv"
HISTORY_PICTURE, HISTORY_IMAGE = (f"{HISTORY}/{name}" for name in ("picture", "image"))
FEEDBACK = "/feedback"
FEEDBACK_PREVIEW, FEEDBACK_ADD, FEEDBACK_BACK = (
    f"{FEEDBACK}/{name}" for name in ("preview", "add", "back")
)
CHANGED = (REGION, FEEDBACK, FEEDBACK_PREVIEW, FEEDBACK_ADD, FEEDBACK_BACK)
"""Where requests but GET change something."""
OWN = (
    *(QUERY, INDEX, REGION_MASK, REGION_PROPOSAL, REGION_PICTURE),
    *(HISTORY, HISTORY_CSV, HISTORY_PICTURE, HISTORY_IMAGE, *CHANGED),
)
"""What belongs to one index."""
STATIC = "/static"
"""The folder of the page's files."""
COLOURS = f"{STATIC}/colours.css"
VIEWER_SCRIPT, VIEWER_STYLE = f"{STATIC}/viewer.js", f"{STATIC}/viewer.css"
"""What the page has in common with reports."""

OPEN = (PAGE, DOCS, DESCRIPTION, ALIVE, READY)
"""Answered without the token: they tell nothing of the index."""


class Places:
    """The paths of a service of one index, or of several.

    Attributes
    ----------
    base : str
        ALONE or NAMED.
    counted : tuple of str
        Whose requests are counted each by its name.
    all : tuple of str
        What may be meant by a path that is not there.
    """

    def __init__(self, *, several: bool) -> None:
        self.several = several
        self.base = NAMED if several else ALONE
        self.counted = (
            *(*OPEN, METRICS),
            *((INDICES,) if several else ()),
            *(f"{self.base}{own}" for own in OWN),
        )
        self.all = (*self.counted, COLOURS)
        self._own = re.compile(re.escape(self.base).replace(r"\{name\}", "[^/]+") + "(/.+)")

    def own(self, path: str) -> str:
        """Return what of an index a path names, such as /query; "" if nothing."""
        found = self._own.fullmatch(path)
        return found[1] if found and found[1] in OWN else ""

    def counted_as(self, path: str) -> str:
        """Return by what name a path's requests are counted."""
        own = self.own(path)
        place = f"{self.base}{own}" if own else path
        return place if place in self.counted else "other"
