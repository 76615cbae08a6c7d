"""The HTTP API: OpenAI's endpoints over an engine, with the chat page, reports, health and metrics.

It knows neither Ray nor which engine it talks to. All errors leave here in OpenAI's shape; prompts and
answers are in no log unless `serve.log_prompts` is set.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from ctllm_ray.base import storage
from ctllm_ray.base.errors import CtllmError, EngineFailed
from ctllm_ray.base.outage import patience
from ctllm_ray.inference.engine import EngineLoad
from ctllm_ray.serving.api import errors, format_response, parse_request, requests, responses
from ctllm_ray.serving.api.app_state import AppState
from ctllm_ray.serving.api.auth import CLIENT_DISCONNECTED, REPORTS, AuthMiddleware, set_cookie
from ctllm_ray.serving.api.disconnect import ClientDisconnected, EventStream, run_while_connected
from ctllm_ray.serving.api.draining import Draining
from ctllm_ray.serving.api.generation import Generation
from ctllm_ray.serving.api.keys import ANYONE
from ctllm_ray.serving.api.metrics import Metrics, Watch
from ctllm_ray.serving.api.tokenize import format_tokens
from ctllm_ray.serving.evaluations import routes

PAGE = Path(__file__).parents[1] / "page"
PAGE_KINDS = (".html", ".css", ".js", ".svg", ".png", ".ico")
LOAD_S = 5.0  # timeout for the load report of the engine

#: For the page: nothing from other sites, no inline script, no framing.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'; "
    "img-src data:; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
#: For a report: an origin of its own. Web content in it must never reach the API key of the page.
REPORT_HEADERS = {
    "Content-Security-Policy": "sandbox allow-scripts allow-popups; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": errors.ErrorAnswer} for status in (400, 401, 403, 404, 408, 413, 429, 500, 503)
}
_log = logging.getLogger("ctllm.serve")
T = TypeVar("T")


def create(served: AppState) -> FastAPI:
    """Creates the app for uvicorn, or for a Ray Serve ingress."""
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await served.limits.close()
        if served.evaluations is not None:
            await served.evaluations.close()

    app = FastAPI(
        title="ctllm-ray",
        docs_url=None,  # its page loads scripts from other sites
        redoc_url=None,
        lifespan=lifespan,
        responses=_ERRORS,
        # for the OpenAPI document; the middleware does the check
        dependencies=[Depends(HTTPBearer(auto_error=False))],
    )
    _add_completions(app, served, metrics)
    _add_models(app, served)
    _add_tokens(app, served)
    routes.add(app, served)
    _add_care(app, served, metrics)
    _add_reports(app, served)
    page = _add_page(app)
    _add_errors(app)
    paths = {getattr(route, "path", "") for route in app.routes}
    public = {"/health", "/ready", "/openapi.json", *page}
    app.add_middleware(AuthMiddleware, served=served, metrics=metrics, public=public, paths=paths)
    return app


def _add_completions(app: FastAPI, served: AppState, metrics: Metrics) -> None:
    async def respond(
        request: Request,
        body: requests.CommonRequest,
        plan: parse_request.GenerationPlan,
        shape: format_response.Shape,
    ) -> Response:
        if served.serve.log_prompts:
            _log.info("%s asks %s", request.state.key.name, body.model_dump_json(exclude_none=True))
        answer = Generation(served, plan, request.state.key, Watch(metrics, request.state.arrived))
        if body.stream:
            streamed = _stream_response(shape, answer, body.with_usage, served.draining)
            return await run_while_connected(request.receive, streamed, served.draining)
        return _json(
            await run_while_connected(request.receive, format_response.whole(shape, answer), served.draining)
        )

    @app.post("/v1/completions", response_model=responses.Completion, responses=_streams("text_completion"))
    async def completions(body: requests.CompletionRequest, request: Request) -> Response:
        """Completes one or several texts."""
        plan = await parse_request.completion(served, body)
        return await respond(
            request, body, plan, format_response.Completions(served.card.id, served.pieces, plan.top)
        )

    @app.post(
        "/v1/chat/completions", response_model=responses.Chat, responses=_streams("chat.completion.chunk")
    )
    async def chat_completions(body: requests.ChatRequest, request: Request) -> Response:
        """Generates the next turn of a conversation."""
        plan = await parse_request.chat(served, body)
        return await respond(
            request, body, plan, format_response.Chats(served.card.id, served.pieces, plan.top)
        )


async def _stream_response(
    shape: format_response.Shape, answer: Generation, with_usage: bool, draining: Draining
) -> Response:
    """Streams the answer once its first part is there. Until then an error still has its own status."""
    pieces = answer.pieces()
    try:
        first = await anext(pieces)
    except BaseException:
        await pieces.aclose()
        raise
    events = format_response.events(shape, answer, format_response.after(first, pieces), with_usage)
    return EventStream(events, draining, format_response.format_error)


def _add_models(app: FastAPI, served: AppState) -> None:
    card = served.card
    model = responses.ModelObject(
        id=card.id,
        created=card.created,
        model_sha256=card.sha256,
        context_tokens=card.context_tokens,
        chat=card.chat,
        trained_tokens=card.trained_tokens,
        lineage=card.lineage,
    )

    @app.get("/v1/models", response_model=responses.Models)
    async def models() -> Response:
        """Lists the one model that is served, with its lineage."""
        return _json(responses.Models(data=[model]).model_dump_json().encode())

    @app.get("/v1/models/{id:path}", response_model=responses.ModelObject)
    async def model_card(id: str) -> Response:
        """Describes where the model comes from: recipe, data, step."""
        parse_request.check_model(served, id)
        return _json(model.model_dump_json().encode())


def _add_tokens(app: FastAPI, served: AppState) -> None:
    @app.post("/tokenize", response_model=responses.TokenizeResponse)
    async def tokenize(body: requests.TokenizeRequest) -> Response:
        """Returns the ids of a text or a conversation, as a completion would use them."""
        parse_request.check_model(served, body.model)
        if body.messages is not None:
            ids = await parse_request.conversation(served, body.messages)
        else:
            ids = (await parse_request.encode_texts(served, [body.prompt or ""], body.add_special_tokens))[0]
        return _json(await asyncio.to_thread(format_tokens, served.pieces, ids, served.card.context_tokens))

    @app.post("/detokenize")
    async def detokenize(body: requests.DetokenizeRequest) -> responses.DetokenizeResponse:
        """Returns the text of ids, without special tokens."""
        parse_request.check_model(served, body.model)
        return responses.DetokenizeResponse(
            prompt=await asyncio.to_thread(served.tokenizer.decode, body.tokens)
        )


def _add_care(app: FastAPI, served: AppState, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Returns 200 while the engine works, 503 if it died or is stuck. `warning` counts
        replicas that refuse to serve."""
        load = await _load(served)
        warning = (
            f"{load.refusing} replicas refuse to serve: the model's folder was replaced after it was deployed"
        )
        return {"status": "ok"} | ({"warning": warning} if load.refusing else {})

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Returns 200 if a request would be accepted; 503 also if the queue is full or
        the server is shutting down."""
        served.draining.check()
        load = await _load(served)
        if load.waiting >= served.serve.max_waiting > 0:
            raise errors.Refused("the queue is full", status=503, code="overloaded")
        return {"status": "ready", "model": served.card.id}

    @app.get("/metrics", response_class=Response, responses=_other("text/plain"))
    async def prometheus() -> Response:
        """Returns metrics for Prometheus, which sends a key like other clients
        (`authorization.credentials_file`)."""
        try:
            load = await _load(served)
        except CtllmError:
            load = None
        return Response(metrics.page(load), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _load(served: AppState) -> EngineLoad:
    try:
        async with asyncio.timeout(LOAD_S):
            return await served.engine.load()
    except TimeoutError:
        raise EngineFailed(f"the engine did not report its load within {LOAD_S:g} s") from None


async def _of_store(work: Callable[[str], T], uri: str) -> T:
    """Reads from storage. If the storage does not answer, that is an error at once: the client can retry."""
    with patience(0):
        return await asyncio.to_thread(work, uri)


def _add_reports(app: FastAPI, served: AppState) -> None:
    @app.get(REPORTS)
    async def reports(request: Request, response: Response) -> dict[str, bool]:
        """Tells which reports exist: of the corpus, and of the training run."""
        if request.state.key is not ANYONE:
            set_cookie(response, served.keys.ticket(request.state.key), request.url.scheme)
        known = {"clean": "", "train": ""} | served.reports
        return {name: bool(uri) and await _of_store(storage.exists, uri) for name, uri in known.items()}

    @app.get(REPORTS + "/{name}", response_class=Response, responses=_other("text/html"))
    async def report(name: str) -> Response:
        """Returns a report as it was written: `clean` or `train`."""
        uri = served.reports.get(name, "")
        if not uri or not await _of_store(storage.exists, uri):
            raise errors.Refused(
                "this report does not exist",
                status=404,
                code="not_found",
                remedy="create it with `ctllm report`",
            )
        return HTMLResponse(await _of_store(storage.read_bytes, uri), headers=REPORT_HEADERS)


def _add_page(app: FastAPI) -> set[str]:
    """Adds the page's files and returns their paths."""
    files = [file for file in PAGE.glob("*") if file.suffix in PAGE_KINDS]
    routes = {f"/{file.name}": file for file in files} | ({"/": PAGE / "index.html"} if files else {})

    def answering(file: Path) -> Any:
        async def page() -> Response:
            return FileResponse(file, headers=PAGE_HEADERS)

        return page

    for path, file in routes.items():
        app.get(path, include_in_schema=False)(answering(file))
    return set(routes)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(CtllmError)
    async def answer_failure(request: Request, error: CtllmError) -> Response:
        return errors.answer_to(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        fields = {*requests.CompletionRequest.fields(), *requests.ChatRequest.fields()}
        return errors.answer_to(errors.invalid(error.errors(), fields))

    @app.exception_handler(HTTPException)
    async def answer_refusal(request: Request, error: HTTPException) -> Response:
        return errors.json_answer(error.status_code, _of_http(request, error), error.headers)

    @app.exception_handler(ClientDisconnected)
    async def nobody(request: Request, error: ClientDisconnected) -> Response:
        return Response(status_code=CLIENT_DISCONNECTED)

    @app.exception_handler(Exception)
    async def answer_unforeseen(request: Request, error: Exception) -> Response:
        return errors.json_answer(500, errors.problem(500, "internal server error", "internal_error"))


def _of_http(request: Request, error: HTTPException) -> errors.ErrorAnswer:
    """Converts Starlette's HTTP errors, mostly unknown paths."""
    if error.status_code != 404:
        return errors.problem(error.status_code, str(error.detail))
    said = f"unknown request URL: {request.method} {request.url.path[:200]}; see /openapi.json for all URLs"
    return errors.problem(404, said, "unknown_url")


def _streams(object_: str) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: the answer may be a stream."""
    said = f"With `stream`: server-sent events, each a `{object_}`, then `[DONE]`."
    return {200: {"content": {"text/event-stream": {"schema": {"type": "string", "description": said}}}}}


def _other(media_type: str) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: the answer is not JSON, but errors are."""
    return {200: {"content": {media_type: {"schema": {"type": "string"}}}}}


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
