"""The page's server: what it answers, and to whom.

It listens on the loopback alone, answers to no other name of a host (a page elsewhere cannot reach it by rebinding),
and takes nothing without a token that only its own page knows (no form elsewhere can post to it).
"""

import base64
import re
import secrets
import threading
import warnings
from collections.abc import Awaitable, Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from fer_fast.data.decode import decode
from fer_fast.errors import InputError
from fer_fast.page import rendered
from fer_fast.palette import GRAY, OF_CLASSES
from fer_fast.serve.explain import explained, shown
from fer_fast.serve.model import FaceModel
from fer_fast.serve.pictures import cut

MOST_UPLOAD = 32 * 2**20  # bytes of a request: a large photo, or those of a class
MOST_PHOTOS = 100  # of a class that is enrolled
MOST_FACES = 64  # of one photo that are shown, the largest first
_HOSTS = ["127.0.0.1", "localhost"]
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Demo:
    """The answers of the page.

    Args:
        model: names the faces; what is enrolled changes it.
        title: of the page.
        out: where the model is written each time its classes change; None keeps them until the server ends.
    """

    def __init__(self, model: FaceModel, title: str, out: Path | None = None):
        self.model, self.title, self.out = model, title, out
        self.token = secrets.token_urlsafe(24)
        self._one = threading.Lock()  # one request at a time has the model

    def app(self) -> Starlette:
        """The application, to be served on the loopback."""
        routes = [Route("/", self.page)]
        for path, answer in (("/predict", self.predict), ("/enrol", self.enrol), ("/undo", self.undo)):
            routes.append(Route(path, self._posted(answer), methods=["POST"]))
        return Starlette(
            routes=routes,
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)],
            exception_handlers={InputError: _refused, HTTPException: _refused, Exception: _failed},
        )

    def page(self, request: Request) -> Response:
        """The page itself, whose style and script are in it."""
        nonce = secrets.token_urlsafe(12)
        html = rendered(
            "serve/demo/page.html.j2",
            title=self.title,
            nonce=nonce,
            about={
                **self.state(),
                "palette": OF_CLASSES,
                "unknown": GRAY,
                "token": self.token,
                "teachable": self.model.trained.recogniser.classifier.directional,
                "mostUpload": MOST_UPLOAD,
                "mostPhotos": MOST_PHOTOS,
                "kept": str(self.out) if self.out else None,
            },
        )
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data: blob:; "
            "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(html, headers={**_HEADERS, "Content-Security-Policy": policy})

    def state(self) -> dict[str, Any]:
        """The classes, those enrolled, and the threshold."""
        enrolled = [entry["name"] for entry in self.model.trained.state.get("enrolled", ())]
        return {"classes": list(self.model.classes), "enrolled": enrolled, "threshold": self.model.threshold}

    def predict(self, body: bytes, query: dict[str, str]) -> dict[str, Any]:
        """The faces of a photo, with the class activation of their best class where `activation` is 1."""
        how = self.model.trained.preparation()
        image = decode(body, gray=how.channels == 1)
        faces = cut(image, how, "all")[:MOST_FACES]
        named = self.model.name(faces, *self.model.score(faces))
        best = [self.model.classes.index(one.best) for one in named]
        maps = explained(self.model, faces, best) if query.get("activation") == "1" else [None] * len(faces)
        return {
            "size": [image.shape[1], image.shape[0]],
            "faces": [
                {
                    **one._asdict(),
                    "scores": sorted(one.scores.items(), key=lambda pair: -pair[1]),
                    "face": _address(shown(face)),
                    "activation": None if seen is None else _address(seen),
                }
                for face, one, seen in zip(faces, named, maps, strict=True)
            ],
        }

    def enrol(self, body: bytes, query: dict[str, str]) -> dict[str, Any]:
        """Add the class `name`, of photos that lie one behind the other in the body, of `lengths` bytes each."""
        lengths = [int(part) for part in query.get("lengths", "").split(",") if re.fullmatch("[0-9]{1,9}", part)]
        if not lengths or sum(lengths) != len(body) or len(lengths) > MOST_PHOTOS:
            raise InputError(f"photos: 1 to {MOST_PHOTOS} of them are needed, each as long as it says")
        photos = [body[end - length : end] for end, length in zip(accumulate(lengths), lengths, strict=True)]
        return self._changed(lambda: self.model.enrol(query.get("name", ""), photos))

    def undo(self, body: bytes, query: dict[str, str]) -> dict[str, Any]:
        """Take back what was enrolled last, which has to be the class `name`: another page may have done more since."""
        last = next(reversed(self.state()["enrolled"]), None)
        if last is not None and last != query.get("name"):
            raise InputError(f"what was enrolled last is {last}, which this page does not know yet; load it again")
        return self._changed(self.model.undo)

    def _changed(self, change: Callable[[], object]) -> dict[str, Any]:
        """Both the model and its file, or neither: the page shall not run ahead of what is kept."""
        with self.model.unless_it_fails(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            change()
            if self.out is not None:
                self.model.save(self.out)
        return {**self.state(), "warnings": [str(line.message) for line in said]}

    def _posted(
        self, answer: Callable[[bytes, dict[str, str]], dict[str, Any]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that checks who asks and how much is sent before it answers."""

        async def endpoint(request: Request) -> Response:
            if not secrets.compare_digest(request.headers.get("x-token", "").encode(), self.token.encode()):
                raise HTTPException(403, "this page is not the one that the server gave; load it again")
            body = bytearray()
            async for part in request.stream():
                body += part
                if len(body) > MOST_UPLOAD:
                    raise HTTPException(413, f"at most {MOST_UPLOAD // 2**20} MiB are taken at a time")
            query = dict(request.query_params)
            return JSONResponse(await run_in_threadpool(self._alone, answer, bytes(body), query), headers=_HEADERS)

        return endpoint

    def _alone(
        self, answer: Callable[[bytes, dict[str, str]], dict[str, Any]], body: bytes, query: dict[str, str]
    ) -> dict[str, Any]:
        with self._one:
            return answer(body, query)


def _address(pixels: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", pixels[..., ::-1])[1]).decode()


def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 400
    said = error.detail if isinstance(error, HTTPException) else str(error)
    return JSONResponse({"error": said}, status_code=status, headers=_HEADERS)


def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "that went wrong here; the terminal says how"}, status_code=500, headers=_HEADERS)
