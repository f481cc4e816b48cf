"""The paths of the service."""

PAGE, DOCS, DESCRIPTION = "/", "/docs", "/openapi.json"
ALIVE, READY = "/healthz", "/readyz"
QUERY, INDEX, METRICS = "/v1/query", "/v1/index", "/metrics"
REGION = "/v1/region"
REGION_MASK, REGION_PROPOSAL, REGION_PICTURE = (
    f"{REGION}/{name}" for name in ("mask", "proposal", "picture")
)
STATIC = "/static"
"""The folder of the page's files."""
COLOURS = f"{STATIC}/colours.css"
VIEWER_SCRIPT, VIEWER_STYLE = f"{STATIC}/viewer.js", f"{STATIC}/viewer.css"
"""What the page has in common with reports."""

OPEN = (PAGE, DOCS, DESCRIPTION, ALIVE, READY)
"""Answered without the token: they tell nothing of the index."""
REGIONS = (REGION, REGION_MASK, REGION_PROPOSAL, REGION_PICTURE)
COUNTED = (*OPEN, QUERY, INDEX, METRICS, *REGIONS)
"""Whose requests are counted each by its name."""
PLACES = (*COUNTED, COLOURS)
"""What may be meant by a path that is not there."""
