"""A client of the service, for other programs: `spade-faiss serve` on the other side.

Two images are queried so:

    with Client("http://line-3:8000", token="…") as client:
        for image in client.query(["a.png", "b.png"]).images:
            print(image.name, image.verdict, image.score)
"""

from __future__ import annotations

import base64
import io
import os
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, cast
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from pydantic import BaseModel, ValidationError

from .answers import (
    FeedbackAnswer,
    HistoryAnswer,
    IndexAnswer,
    IndexState,
    IndicesAnswer,
    PastResult,
    Picture,
    QueriedImage,
    QueryAnswer,
    RegionAnswer,
)
from .errors import SpadeError
from .types import Floats

try:
    import httpx
except ModuleNotFoundError as error:
    raise SpadeError(
        f"the client needs the package {error.name}: "
        "pip install '.[client]' in the project's folder"
    ) from None

__all__ = [
    "Client",
    "FeedbackAnswer",
    "HistoryAnswer",
    "IndexAnswer",
    "IndexState",
    "PastResult",
    "Picture",
    "QueriedImage",
    "QueryAnswer",
    "RegionAnswer",
    "ServiceError",
    "read_map",
]

ImageLike = str | os.PathLike[str] | bytes | BinaryIO | npt.NDArray[np.uint8]
"""A file by its path, its content or open for reading; or pixels, RGB or grey."""
Answer = TypeVar("Answer", bound=BaseModel)
_BYTES = (bytes, bytearray, memoryview)
_LEAST = 0.05
"""Seconds before a request is sent again."""


class ServiceError(SpadeError):
    """What the service did not do, or that it does not answer.

    Attributes
    ----------
    status : int or None
        Of its answer; None if there was none, or none that can be read.
    request_id : str or None
        By which the service's access log has the request.
    """

    def __init__(self, text: str, status: int | None = None, request_id: str | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.request_id = request_id


class Client:
    """Asks a service; several threads may share one.

    A request that is refused for now (status 429 or 503, with `Retry-After`) is sent again when
    the service says.

    Parameters
    ----------
    url : str
        Where the service is: "http://127.0.0.1:8000".
    index : str, optional
        The name of an index, if the service has several.
    token : str, optional
        Of the service, if it asks for one.
    timeout : float
        Seconds that the service may say nothing.
    patience : float
        Seconds in which a request may be sent again.

    Raises
    ------
    SpadeError
        If `url` or `token` can be none.
    """

    def __init__(
        self,
        url: str,
        *,
        index: str | None = None,
        token: str | None = None,
        timeout: float = 120.0,
        patience: float = 60.0,
    ) -> None:
        if token is not None and not (token.isascii() and token.isprintable() and token):
            raise SpadeError(
                "the `token` is none of a service: it has letters that no header holds"
            )
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        try:
            if httpx.URL(url).scheme not in ("http", "https") or not httpx.URL(url).host:
                raise ValueError
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        except (httpx.InvalidURL, ValueError):
            raise SpadeError(f"`url={url}` is none of a service: write http://HOST:PORT") from None
        self.url = url
        self.index = index
        self._patience = patience

    def __enter__(self) -> Client:
        """Return the client, which is closed with the `with` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the client."""
        self.close()

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index!r}"
        return f"Client({self.url!r}{index})"

    def close(self) -> None:
        """Close the connections, those of clients that `for_index` made, too."""
        self._http.close()

    def for_index(self, name: str) -> Client:
        """Return a client of another index of the same service, which shares the connections."""
        other = object.__new__(Client)
        other.__dict__.update(self.__dict__, index=name)
        return other

    def query(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        maps: Literal["tiff", "png"] | None = None,
        pictures: bool = False,
        full: bool = False,
        request_id: str | None = None,
    ) -> QueryAnswer:
        """Compare images with the good ones.

        Parameters
        ----------
        images : image or sequence of images
            Each a path, a file's content, a file that is open for reading, or uint8 pixels
            [h, w, 3] in the order red, green, blue (OpenCV's is the other one), or [h, w] grey.
        maps : "tiff" or "png", optional
            Also send the anomaly maps; see `read_map`.
        pictures, full : bool
            Also send pictures for the eye, and the images at their own resolution.
        request_id : str, optional
            By which the answer and the service's access log have the request.

        Raises
        ------
        ServiceError
            If the service refuses: its words say why.
        SpadeError
            If an image cannot be read.
        """
        several = isinstance(images, Sequence) and not isinstance(images, (str, *_BYTES))
        listed = cast("Sequence[ImageLike]", images if several else [images])
        files = [("images", _file(number, one)) for number, one in enumerate(listed)]
        asked: dict[str, str] = {}
        if maps is not None:
            asked["maps"] = maps
        for name, value in (("pictures", pictures), ("full", full)):
            if value:
                asked[name] = "true"
        if request_id is not None and not (request_id.isascii() and request_id.isprintable()):
            raise SpadeError(f"`request_id={request_id!r}` has letters that no header holds")
        headers = {} if request_id is None else {"x-request-id": request_id}
        return self._ask(
            QueryAnswer, "POST", f"{self._base}/query", files=files, params=asked, headers=headers
        )

    def info(self) -> IndexAnswer:
        """Return what the index holds, and where its thresholds lie."""
        return self._ask(IndexAnswer, "GET", f"{self._base}/index")

    def indices(self) -> list[IndexState]:
        """Return the indices of a service of several."""
        return self._ask(IndicesAnswer, "GET", "/v1/indices").indices

    def region(self) -> RegionAnswer:
        """Return which part of pictures the index looks at, and what becomes of another."""
        return self._ask(RegionAnswer, "GET", f"{self._base}/region")

    def look_at(self, mask: ImageLike | None) -> RegionAnswer:
        """Have the index look where a picture is white, or None: everywhere.

        It is learnt in the background; `region` says when it counts. The service must be
        `editable`.
        """
        path = f"{self._base}/region"
        if mask is None:
            return self._ask(RegionAnswer, "DELETE", path)
        return self._ask(RegionAnswer, "PUT", path, content=_file(0, mask)[1])

    def history(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        verdict: Literal["OK", "REVIEW", "NG", "none"] | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> HistoryAnswer:
        """Return results that the service keeps, the newest first, and how many of each verdict.

        Parameters
        ----------
        since, until : datetime, optional
            From the first on, and before the second.
        verdict : str, optional
            Of this one alone; "none" is without a threshold.
        before : int, optional
            Older than the result of this number.
        limit : int
            So many at most, of 500.
        """
        times = {
            name: time.astimezone(UTC).isoformat()
            for name, time in (("since", since), ("until", until))
            if time is not None
        }
        asked = {"verdict": verdict, "before": before, "limit": limit}
        given = {name: value for name, value in asked.items() if value is not None}
        return self._ask(HistoryAnswer, "GET", f"{self._base}/history", params=times | given)

    def call_good(self, id: int, by: str, remark: str = "") -> PastResult:
        """Say that the image of a result was good, whose `id` an answer to `query` has.

        It is kept in a queue: see `feedback`.
        """
        body = {"id": id, "by": by, "remark": remark}
        return self._ask(PastResult, "POST", f"{self._base}/feedback", json=body)

    def take_off(self, id: int) -> PastResult:
        """Take the image of a result off the queue."""
        return self._ask(PastResult, "DELETE", f"{self._base}/feedback", params={"id": id})

    def feedback(self) -> FeedbackAnswer:
        """Return the images that were called good, and what is done with them."""
        return self._ask(FeedbackAnswer, "GET", f"{self._base}/feedback")

    def try_adding(self) -> FeedbackAnswer:
        """Have the service find what the index becomes if these images are added.

        It does so in the background; `feedback` then has the `preview`. The service must be
        `editable`.
        """
        return self._ask(FeedbackAnswer, "POST", f"{self._base}/feedback/preview")

    def add(self, generation: str, by: str) -> FeedbackAnswer:
        """Have the index that was tried, of the preview's generation, put in service."""
        body = {"generation": generation, "by": by}
        return self._ask(FeedbackAnswer, "POST", f"{self._base}/feedback/add", json=body)

    def step_back(self, by: str) -> FeedbackAnswer:
        """Have the index as it was before the last adding put in service."""
        return self._ask(FeedbackAnswer, "POST", f"{self._base}/feedback/back", json={"by": by})

    def ready(self) -> bool:
        """Say whether the service takes queries."""
        try:
            return self._http.get("/readyz").is_success
        except httpx.HTTPError:
            return False

    @property
    def _base(self) -> str:
        return "/v1" if self.index is None else f"/v1/indices/{quote(self.index, safe='')}"

    def _ask(self, kind: type[Answer], method: str, path: str, **options: Any) -> Answer:
        """Send a request until it is answered, and return the answer."""
        until = time.monotonic() + self._patience
        while True:
            try:
                response = self._http.request(method, path, **options)
            except httpx.HTTPError as error:
                why = str(error) or type(error).__name__
                raise ServiceError(f"{self.url} does not answer: {why}") from error
            wait = _retry_after(response)
            if wait is None or time.monotonic() + wait > until:
                break
            time.sleep(wait * random.uniform(1, 1.2))  # or all come back at once
        request_id = response.headers.get("x-request-id")
        if not response.is_success:
            raise ServiceError(f"{self.url}: {_detail(response)}", response.status_code, request_id)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the answer"
            raise ServiceError(
                f"{self.url} answers otherwise than this client reads; is it a spade-faiss "
                f"service of this version? {where}: {first['msg']}",
                request_id=request_id,
            ) from None


def read_map(picture: Picture) -> Floats:
    """Return the anomaly map that an answer carries, float32 [h, w], on the image's grid."""
    data = io.BytesIO(base64.b64decode(picture.data))
    if picture.media_type == "image/tiff":
        return np.asarray(tifffile.imread(data), np.float32)
    return np.asarray(Image.open(data), np.float32) * np.float32(picture.scale or 1)


def _file(number: int, image: ImageLike) -> tuple[str, bytes]:
    """Return a name and the content of a file that holds an image."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise SpadeError(
                f"pixels must be uint8 [h, w, 3] (red, green, blue) or [h, w], and are "
                f"{image.dtype} {[*image.shape]}"
            )
        data = io.BytesIO()
        Image.fromarray(image).save(data, "png", compress_level=1)
        return f"image {number}", data.getvalue()
    if isinstance(image, _BYTES):
        return f"image {number}", bytes(image)
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        try:
            return path.name, path.read_bytes()
        except OSError as error:
            raise SpadeError(f"{path}: {error.strerror}") from None
    if not hasattr(image, "read"):
        raise SpadeError(
            f"an image is a path, a file's content, an open file or pixels, and not a "
            f"{type(image).__name__}"
        )
    name = getattr(image, "name", None)
    return Path(name).name if isinstance(name, str) else f"image {number}", image.read()


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds after which a request may be sent again; None if it may not be."""
    told = response.headers.get("retry-after")
    if response.status_code not in (429, 503) or told is None:
        return None
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return None
    return max(_LEAST, seconds) if seconds < float("inf") else None


def _detail(response: httpx.Response) -> str:
    """Return in one line why a request was not done."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.reason_phrase or "no reason is given"
    return f"{detail} (status {response.status_code})"
