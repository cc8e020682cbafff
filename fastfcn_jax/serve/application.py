"""The addresses of the server: the page, the interface for programs, health and measures."""

import functools
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from fastfcn_jax import __version__
from fastfcn_jax.data.datasets import street_scene
from fastfcn_jax.data.pixel_type import RGB
from fastfcn_jax.errors import UserError
from fastfcn_jax.serve.answer import Answer, Answerer, Output, color
from fastfcn_jax.serve.desk import Desk, Occupation
from fastfcn_jax.serve.guard import FAILED, UNTIL_SENT, RefusedError, complain
from fastfcn_jax.serve.measures import Measures

FOLDER = Path(__file__).parent
MAX_BYTES = 32 << 20
EXAMPLE_SIZE = (360, 480)
PNG = "image/png"


class Problem(BaseModel):
    """Why a request failed."""

    error: str = Field(description="one sentence")


class ClassName(BaseModel):
    name: str
    color: str = Field(description="#rrggbb")


class About(BaseModel):
    """What is served."""

    dataset: str
    classes: list[ClassName] = Field(description="in the order of the class numbers")
    protocol: str = Field(description="how images are tested; an exported file has one way")
    images: str = Field(description="the kind of images that the model takes")
    max_bytes: int = Field(description="of an upload")
    example: bool = Field(description="whether /example.png exists")


class Status(BaseModel):
    """What the server is doing."""

    doing: str = Field(description='"predicting", "compiling for …", or "": nothing')
    seconds: float = Field(description="since when")
    requests: int = Field(description="uploading, waiting or being answered")
    places: int = Field(description="how many it takes; others get status 503")


class Application:
    """The FastAPI application for one model, in `api`.

    Args:
      model: as `Answerer` takes it.
      protocol: see `About`.
    """

    def __init__(self, model, *, protocol: str, measures: Measures, places: int):
        self.measures = measures
        self.occupation = Occupation()
        self.answerer = Answerer(model, self.occupation)
        self.desk = Desk(self.answerer, measures, places=places)
        if hasattr(model, "say"):
            self._print, model.say = model.say, self._compiles
        info = model.info
        self.about = About(
            dataset=info.name,
            classes=[
                ClassName(name=name, color=color(value))
                for name, value in zip(info.class_names, info.palette, strict=True)
            ],
            protocol=protocol,
            images=f"{model.pixel.channels} channels, {model.pixel.dtype}",
            max_bytes=MAX_BYTES,
            example=model.pixel == RGB,
        )
        self.api = FastAPI(
            title="FastFCN",
            version=__version__,
            description="Labels each pixel of an image. Nothing that is uploaded is kept.",
            docs_url=None,  # FastAPI's page fetches its script from another machine
            redoc_url=None,
        )
        self._add_routes()
        self._add_handlers()

    def _compiles(self, sentence: str) -> None:
        self.measures.compilations.inc()
        self.occupation.begin(sentence)
        self._print(sentence)

    def _add_routes(self) -> None:
        hidden = functools.partial(self.api.get, include_in_schema=False)
        hidden("/", response_class=HTMLResponse)(_file("page.html"))
        hidden("/docs", response_class=HTMLResponse)(_file("interface.html"))
        hidden("/example.png")(self._example)
        self.api.get("/healthz", summary="Status 200 while the server works.")(self._health)
        self.api.head("/healthz", include_in_schema=False)(self._health)
        self.api.get("/metrics", summary="Measures for Prometheus.", response_class=Response)(
            self._metrics
        )
        self.api.get("/v1/model", summary="What is served.", response_model=About)(self._about)
        self.api.get("/v1/status", summary="What the server is doing.", response_model=Status)(
            self._status
        )
        problems: dict[int | str, dict[str, Any]] = {
            status: {"model": Problem, "description": why}
            for status, why in (
                (403, "the request is for another host, or of another site's page"),
                (408, "the upload took too long"),
                (413, "the upload is empty or too large"),
                (415, "a form, instead of the file itself"),
                (422, "the upload is no image, or not one that the model takes"),
                (503, "the queue is full; Retry-After says when to come again"),
            )
        }
        content = {"image/*": {"schema": {"type": "string", "format": "binary"}}}
        self.api.post(
            "/v1/predict",
            summary="Labels one image.",
            response_model=None,
            responses={
                200: {"model": Answer, "content": {PNG: {}}, "description": "the answer"},
                **problems,
            },
            openapi_extra={"requestBody": {"required": True, "content": content}},
        )(self._predict)

    def _add_handlers(self) -> None:
        def refused(_: Request, error: Any) -> Response:
            return JSONResponse({"error": error.sentence}, error.status, error.headers)

        def invalid(_: Request, error: Any) -> Response:
            first = error.errors()[0]
            return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 422)

        def failed(request: Request, error: Any) -> Response:
            complain(request.scope, error)
            return JSONResponse({"error": FAILED}, 500)

        self.api.exception_handler(Exception)(failed)
        self.api.exception_handler(RefusedError)(refused)
        self.api.exception_handler(RequestValidationError)(invalid)
        self.api.exception_handler(UserError)(
            lambda _, error: JSONResponse({"error": str(error)}, 422)
        )
        sentences = {404: "no such address", 405: "this address does not take this method"}
        self.api.exception_handler(HTTPException)(
            lambda _, error: JSONResponse(
                {"error": sentences.get(error.status_code, str(error.detail))}, error.status_code
            )
        )

    async def _predict(
        self,
        request: Request,
        output: Annotated[
            Output | None,
            Query(
                description="json: shares of the classes, label map and confidence; labels: the "
                "label map, a PNG of class numbers with their colours as its palette; overlay: the "
                "photograph under its classes' colours; confidence: a PNG of probabilities. "
                "Default: labels if the request accepts image/png, else json."
            ),
        ] = None,
    ) -> Response:
        """The request's body is the image file: PNG, JPEG, WebP, BMP, GIF, TIFF or .npy."""
        kind = request.headers.get("content-type", "")
        if kind.startswith(("multipart/", "application/x-www-form-urlencoded;")):
            raise RefusedError(
                415, "send the file itself as the body: curl --data-binary @photo.jpg ADDRESS"
            )
        wanted: Output = output or (
            "labels" if PNG in request.headers.get("accept", "") else "json"
        )
        announced = request.headers.get("content-length")
        size = MAX_BYTES if announced is None else int(announced)  # h11 has checked the number
        _check_length(size)
        # A client that does not take its reply keeps its place, so that replies cannot pile up.
        await request.scope[UNTIL_SENT].enter_async_context(self.desk.place(size))
        data = await _body(request)
        found = await self.desk.answer(request.is_disconnected, data, wanted)
        if isinstance(found, bytes):
            return Response(found, media_type=PNG)
        return Response(found.model_dump_json(), media_type="application/json")

    async def _about(self) -> About:
        return self.about

    async def _status(self) -> Status:
        doing, seconds = self.occupation.now()
        return Status(
            doing=doing, seconds=round(seconds, 1), requests=self.desk.held, places=self.desk.places
        )

    async def _health(self) -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    async def _metrics(self) -> Response:
        return Response(self.measures.text(), media_type="text/plain; version=0.0.4")

    async def _example(self) -> Response:
        if not self.about.example:
            raise RefusedError(404, "there is no example of this kind of image")
        return Response(_drawing(), media_type=PNG)


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BYTES:  # chunked: its length was not announced
            _check_length(size)
        parts.append(part)
    _check_length(size)
    return b"".join(parts)


def _check_length(size: int) -> None:
    if not 0 < size <= MAX_BYTES:
        raise RefusedError(413, f"the file is empty or over {MAX_BYTES >> 20} MiB")


def _file(name: str):
    text = (FOLDER / name).read_text(encoding="utf-8")

    async def send() -> HTMLResponse:
        return HTMLResponse(text)

    return send


@functools.cache
def _drawing() -> bytes:
    """A street scene as PNG."""
    image = street_scene.Scene(np.random.default_rng(7), EXAMPLE_SIZE).draw()[0]
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()
