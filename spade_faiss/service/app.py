"""The service as an application: its places, what guards them, and what they share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.staticfiles import StaticFiles

from .access_log import AccessLog
from .context import Context, Resources, State
from .guard import Guard
from .history import History
from .indices import IndexFolder, Indices
from .limits import Limits
from .live import LiveIndex
from .openapi import ABOUT, TITLE, access, problems
from .origins import Origins
from .parameters import check_parameters
from .places import DESCRIPTION, STATIC, Places
from .refusals import HANDLERS
from .routes import feedback, health, history, index, indices, metrics, page, query, region


def create_app(
    source: LiveIndex | IndexFolder,
    limits: Limits,
    state: State,
    token: str | None = None,
    allow_hosts: Collection[str] | None = (),
    *,
    editable: bool = False,
    allow_origins: Collection[str] = (),
    access_log: AccessLog | None = None,
    kept: History | None = None,
) -> FastAPI:
    """Return the service as an ASGI application.

    Parameters
    ----------
    source : LiveIndex or IndexFolder
        One index, which is closed when the application shuts down, or a folder of several.
    limits : Limits
        Of all indices together.
    state : State
        To be told when to drain, and to tell when that is done.
    token : str, optional
        What clients must show as a bearer token.
    allow_hosts : collection of str or None
        Names that the service goes by, besides loopback addresses; None for any.
    editable : bool
        Whether clients may change an index: give it another region, or add images.
    allow_origins : collection of str
        Other sites whose pages may use the service; see `Origins`.
    access_log : AccessLog, optional
        Is closed when the application shuts down.
    kept : History, optional
        Where results are kept; it is for the caller to close.

    Raises
    ------
    SpadeError
        If an origin is none or may not be allowed, or several indices are to be served in less
        memory than none takes.
    """
    several = isinstance(source, IndexFolder)
    places, resources = Places(several=several), Resources(limits, state, kept, several=several)
    guarded = access(token=token is not None)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.open()
        yield
        resources.close()
        await app.state.close()
        if access_log:
            access_log.close()

    app = FastAPI(
        title=TITLE,
        version="1",
        description=ABOUT,
        lifespan=lifespan,
        dependencies=[Depends(check_parameters)],
        exception_handlers=dict(HANDLERS),
        openapi_url=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.resources, app.state.places = resources, places
    app.add_middleware(
        Guard,
        state=state,
        limits=limits,
        metrics=resources.metrics,
        places=places,
        token=token,
        hosts=allow_hosts,
        origins=Origins(allow_origins, token=token is not None),
        log=access_log,
    )
    app.include_router(page.router)
    app.mount(STATIC, StaticFiles(directory=page.FOLDER))
    if isinstance(source, IndexFolder):
        all_indices = Indices(source, resources, editable=editable)
        app.state.indices = all_indices
        app.state.open, app.state.close = all_indices.start, all_indices.close
        app.include_router(indices.router(guarded))
        for_one, more = Depends(indices.named), problems(404, 503)
    else:
        context = Context(source, resources, editable=editable)
        app.state.context = context
        app.state.open, app.state.close = source.watch, context.close
        for_one, more = Depends(indices.alone), {}
    for own in (
        query.router(guarded, limits),
        index.router(guarded),
        region.router(guarded, limits),
        history.router(guarded),
        feedback.router(guarded, limits),
    ):
        app.include_router(own, prefix=places.base, dependencies=[for_one], responses=more)
    app.include_router(health.router)
    app.include_router(metrics.router(guarded))
    return app
