"""The service as an application: its places, what guards them, and what they share."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import Depends, FastAPI
from fastapi.staticfiles import StaticFiles

from .context import Context, State
from .guard import Guard
from .limits import Limits
from .live import LiveIndex
from .openapi import ABOUT, TITLE, access
from .parameters import check_parameters
from .places import DESCRIPTION, STATIC
from .refusals import HANDLERS
from .routes import health, index, metrics, page, query, region


def create_app(
    live: LiveIndex,
    limits: Limits,
    state: State,
    token: str | None = None,
    allow_hosts: Collection[str] | None = (),
    *,
    editable: bool = False,
) -> FastAPI:
    """Return the service as an ASGI application.

    Parameters
    ----------
    live : LiveIndex
        Is closed when the application shuts down.
    limits : Limits
    state : State
        To be told when to drain, and to tell when that is done.
    token : str, optional
        What clients must show as a bearer token.
    allow_hosts : collection of str or None
        Names that the service goes by, besides loopback addresses; None for any.
    editable : bool
        Whether clients may give the index another region.
    """
    context = Context(live, limits, state, editable=editable)
    app = FastAPI(
        title=TITLE,
        version="1",
        description=ABOUT,
        lifespan=context.lifespan,
        dependencies=[Depends(check_parameters)],
        exception_handlers=dict(HANDLERS),
        openapi_url=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.context = context
    app.add_middleware(
        Guard, state=state, limits=limits, metrics=context.metrics, token=token, hosts=allow_hosts
    )
    guarded = access(token=token is not None)
    app.include_router(page.router)
    app.mount(STATIC, StaticFiles(directory=page.FOLDER))
    app.include_router(query.router(guarded, limits))
    app.include_router(index.router(guarded))
    app.include_router(region.router(guarded, limits))
    app.include_router(health.router)
    app.include_router(metrics.router(guarded))
    return app
