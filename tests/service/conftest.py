"""The tests of the service need its packages; without them a skipped test says so."""

from importlib.util import find_spec

NEEDED = ("fastapi", "httpx", "jinja2", "prometheus_client", "python_multipart", "uvicorn")

if all(map(find_spec, NEEDED)):
    from tests.service.serving import held, index, parts, service  # noqa: F401 - fixtures
else:
    collect_ignore_glob = ["test_[!n]*.py"]
