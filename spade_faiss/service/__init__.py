"""The index as a service over HTTP, with a page: `spade-faiss serve`."""

from ..errors import SpadeError

try:
    from .app import create_app
    from .limits import Limits
    from .live import LiveIndex
    from .server import serve
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] == "spade_faiss":
        raise
    raise SpadeError(f"serve needs the package {error.name}: pip install 'spade-faiss[serve]'"
                     ) from None

__all__ = ["Limits", "LiveIndex", "create_app", "serve"]
