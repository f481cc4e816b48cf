"""An index, an ensemble or several as a service over HTTP, with a page: `spade-faiss serve`."""

from ..errors import SpadeError

try:  # before the rest, which takes a second
    import fastapi  # noqa: F401
    import jinja2  # noqa: F401
    import prometheus_client  # noqa: F401
    import python_multipart  # noqa: F401
    import uvicorn  # noqa: F401
except ModuleNotFoundError as error:
    raise SpadeError(
        f"the service needs the package {error.name}: "
        "pip install '.[serve]' in the project's folder"
    ) from None

from .app import create_app
from .history import History
from .indices import IndexFolder
from .limits import Limits
from .live import LiveIndex
from .past import Bounds
from .server import serve

__all__ = ["Bounds", "History", "IndexFolder", "Limits", "LiveIndex", "create_app", "serve"]
