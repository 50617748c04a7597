"""The HTTP surface: metrics, probes, status, the live page, and the orders of operators.

Owns: the routes, who may give orders, what an answer looks like.
Does not know: how the proxy works; it reads and orders through `ProcessView` only.

The caller keeps the event loop free of other threads: the view is read on the loop that serves the queries.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address

import structlog
from aiohttp import web

from proxy.service.adaptive_state import worst_canary
from proxy.service.class_status import Document, switch_document
from proxy.service.config.parts import parts
from proxy.service.exposition import CONTENT_TYPE, process_registry, render
from proxy.service.history import SAMPLE_EVERY_SECONDS, History
from proxy.service.metrics import PgheadroomCollector
from proxy.service.page import page_with_headers
from proxy.service.status import (
    history_document,
    override_document,
    report_document,
    status_document,
)
from proxy.service.switch_request import BadSwitch, WantedOrder, has_token, is_foreign_page, parse_order
from proxy.service.switchboard import STATES, OrderRefused
from proxy.service.traffic.report import Question, TooLittleSeen, report
from proxy.service.view import ProcessView, readable_text
from proxy.session.listener import CannotListen

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES = 4096
_LONGEST_NAME_LOGGED = 63  # no class has a longer one
_MOST_DIGITS = 9  # more hours or seconds than anybody has seen, and none that arithmetic chokes on
log = structlog.get_logger("pgheadroom.http")


class SwitchesFrom(StrEnum):
    """Where orders are taken from: commands on this machine, or whoever reaches the port."""

    LOOPBACK = "loopback"
    ANYWHERE = "anywhere"


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where to listen. `trusted_hosts` are the names under which people open the page, besides addresses.

    `switch_token` is what an order has to bring, wherever it comes from; None asks for nothing.
    """

    host: str = "127.0.0.1"
    port: int = 9432
    switches_from: SwitchesFrom = SwitchesFrom.LOOPBACK
    trusted_hosts: frozenset[str] = frozenset()
    switch_token: str | None = field(default=None, repr=False)


class HttpServer:
    """Serves the view from the running loop. `start` once, `stop` once; stopping lets running answers finish."""

    def __init__(self, view: ProcessView, settings: HttpSettings) -> None:
        self._settings = settings
        self.port = settings.port
        self._surface = _Surface(view, settings, History())
        # Signals are the process's own business, and an access line per scrape is noise.
        self._runner = web.AppRunner(
            _application(self._surface), handle_signals=False, access_log=None, shutdown_timeout=1.0
        )

    async def start(self) -> int:
        """Listen; returns the port, which matters where the settings say 0. Raises CannotListen where that fails."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.host, self._settings.port)
        try:
            await site.start()
        except OSError as problem:
            await self._runner.cleanup()
            where = f"{self._settings.host} port {self._settings.port}"
            raise CannotListen(f"cannot listen on {where}: {problem.strerror}; see http.host, http.port") from problem
        self.port = self._runner.addresses[0][1]
        log.info("http_listening", host=self._settings.host, port=self.port)
        return self.port

    async def stop(self) -> None:
        await self._runner.cleanup()

    def adopt(self, settings: HttpSettings) -> None:
        """Who may give orders, and how: from the next one on. The address stays."""
        self._surface.settings = settings


def build_application(view: ProcessView, settings: HttpSettings) -> web.Application:
    """The aiohttp application; the tests use it without a socket of ours."""
    return _application(_Surface(view, settings, History()))


def _application(surface: "_Surface") -> web.Application:
    application = web.Application(middlewares=[_errors_in_words], client_max_size=MAX_BODY_BYTES)
    application.cleanup_ctx.append(surface.keep_history)
    application.add_routes(
        [
            web.get("/", surface.page),
            web.get("/metrics", surface.metrics),
            web.get("/healthz", surface.healthz),
            web.get("/readyz", surface.readyz),
            web.get("/canary", surface.canary),
            web.get("/status", surface.status),
            web.get("/history", surface.history),
            web.post(f"/classes/{{name}}/{{order:{'|'.join(STATES)}}}", surface.switch),
            web.post("/set", surface.set),
            web.post("/unset", surface.unset),
            web.post("/reload", surface.reload),
            web.get("/recommend", surface.recommend),
        ]
    )
    return application


class _Surface:
    """The handlers, and the samples of the last minutes."""

    def __init__(self, view: ProcessView, settings: HttpSettings, history: History) -> None:
        self._view = view
        self.settings = settings
        self._history = history
        self._collector = PgheadroomCollector(view, history)
        self._process = process_registry()

    async def keep_history(self, _: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._sample(), name="http-history")
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _sample(self) -> None:
        while True:
            try:
                self._history.observe(self._view, at=time.time())
            except Exception:
                log.exception("history_sample_failed")
            await asyncio.sleep(SAMPLE_EVERY_SECONDS)

    async def page(self, _: web.Request) -> web.Response:
        text, headers = page_with_headers()
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def metrics(self, _: web.Request) -> web.Response:
        body = await render(self._collector, self._process)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def healthz(self, _: web.Request) -> web.Response:
        """Alive: the event loop answers. Nothing more, or a lost database would restart the proxy in a circle."""
        return web.Response(text="alive\n")

    async def readyz(self, _: web.Request) -> web.Response:
        ready, sentence = self._view.ready()
        return web.Response(text=f"{sentence}\n", status=200 if ready else 503)

    async def canary(self, _: web.Request) -> web.Response:
        """Whether customers would be served now: the last canary, and never one asked for from here."""
        state = worst_canary(self._view.canary().values(), time.time())
        if state is None:
            return _error(404, "there is no canary: set canary.interval")
        up, sentence = state.told(time.time())
        return web.Response(text=f"{sentence}\n", status=200 if up else 503)

    async def status(self, request: web.Request) -> web.Response:
        document = status_document(self._view, self._history, now=time.time())
        document["switches_allowed"] = self._why_not(request) is None
        document["switches_need_token"] = self.settings.switch_token is not None
        return _json(document)

    async def history(self, _: web.Request) -> web.Response:
        return _json(history_document(self._history))

    async def recommend(self, request: web.Request) -> web.Response:
        """`at_least` in seconds of traffic seen; `hours` of the clock to look back, the current one included;
        `upstream` where there are several, each of them otherwise."""
        hours, at_least = request.query.get("hours"), request.query.get("at_least", "3600")
        if not (hours is None or _is_whole(hours)) or not _is_whole(at_least):
            return _error(400, "hours and at_least are whole numbers: hours to look back, and seconds to have seen")
        view = self._view
        by_name = {part.name: part for part in parts(view.config)}
        wanted = request.query.get("upstream")
        if wanted is not None and wanted not in by_name:
            return _error(400, f'there is no upstream "{readable_text(wanted)}": upstream={" or ".join(by_name)}')
        totals = {one.name: one.budget.total for one in view.upstreams()}
        frozen, unmatched = view.traffic(), view.unmatched().names
        questions = [
            Question(
                part=by_name[name],
                total=totals[name],
                facts=view.server_facts(name),
                frozen=frozen,
                unmatched=unmatched,
                now=time.time(),
                hours=None if hours is None else int(hours),
                at_least_seconds=float(at_least),
            )
            for name in ([wanted] if wanted is not None else by_name)
        ]
        try:
            # A week of many applications takes tens of milliseconds, and queries pass through this thread.
            documents = [await asyncio.to_thread(report, question) for question in questions]
        except TooLittleSeen as problem:
            return _error(409, str(problem))
        return _json(documents[0] if len(documents) == 1 else {"upstreams": documents})

    async def switch(self, request: web.Request) -> web.Response:
        class_name, order_name = request.match_info["name"], request.match_info["order"]

        def give(wanted: WantedOrder, source: str) -> Document:
            state, seconds = STATES[order_name], wanted.seconds
            switch = self._view.order_switch(
                class_name, state, by=wanted.by, reason=wanted.reason, seconds=seconds, source=source
            )
            return switch_document(switch)

        # Whoever reaches the port, without a token, may ask for a class of any name: the log needs no more of it.
        return await self._order(request, give, class_name=class_name[:_LONGEST_NAME_LOGGED], order=order_name)

    async def set(self, request: web.Request) -> web.Response:
        def give(wanted: WantedOrder, source: str) -> Document:
            settings = wanted.more.get("settings")
            if not isinstance(settings, dict):
                raise BadSwitch(400, 'settings must be an object, like {"classes.bulk.limit": 20}')
            overrides, warnings = self._view.order_set(
                settings, by=wanted.by, reason=wanted.reason, seconds=wanted.seconds, source=source
            )
            return {"overrides": [override_document(one) for one in overrides], "warnings": warnings}

        return await self._order(request, give, more=("settings",), order="set")

    async def unset(self, request: web.Request) -> web.Response:
        def give(wanted: WantedOrder, source: str) -> Document:
            keys = wanted.more.get("keys")
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or not keys:
                raise BadSwitch(400, 'keys must be a list of settings, like ["classes.bulk.limit"]')
            over = self._view.order_unset(keys, by=wanted.by, reason=wanted.reason, source=source)
            return {"overrides": [override_document(one) for one in over]}

        return await self._order(request, give, more=("keys",), order="unset")

    async def reload(self, request: web.Request) -> web.Response:
        def give(wanted: WantedOrder, source: str) -> Document:
            dry_run = wanted.more.get("dry_run", False)
            if not isinstance(dry_run, bool):
                raise BadSwitch(400, "dry_run must be true or false")
            report = self._view.order_reload(by=wanted.by, reason=wanted.reason, source=source, dry_run=dry_run)
            return report_document(report)

        return await self._order(request, give, more=("dry_run",), order="reload")

    async def _order(
        self,
        request: web.Request,
        give: Callable[[WantedOrder, str], Document],
        more: tuple[str, ...] = (),
        **facts: str,
    ) -> web.Response:
        """Whoever may give orders gives this one; what is refused is told, and logged with who tried it."""
        audit = log.bind(remote=request.remote, **facts)
        try:
            self._refuse_strangers(request)
            wanted = parse_order(request.content_type, await request.read(), more)
            audit = audit.bind(by=wanted.by)
            document = give(wanted, f"http {request.remote}")
        except BadSwitch as problem:
            audit.warning("order_refused", why=str(problem))
            return _error(problem.status, str(problem))
        except OrderRefused as problem:
            audit.warning("order_refused", why=str(problem))
            return _error(404 if problem.is_unknown else 409, str(problem))
        return _json(document | {"not_saved": await self._view.orders_saved()})

    def _refuse_strangers(self, request: web.Request) -> None:
        """Raises BadSwitch."""
        why = self._why_not(request)
        if why is not None:
            raise BadSwitch(403, why)
        token = self.settings.switch_token
        if token is not None and not has_token(request.headers.get("Authorization"), token):
            wrong = "brings another token than" if "Authorization" in request.headers else "does not bring"
            raise BadSwitch(
                401,
                f"this order {wrong} that of http.switch_token; commands take it from the configuration (-c) or from "
                "the environment's PGHEADROOM_TOKEN",
            )

    def _why_not(self, request: web.Request) -> str | None:
        """Why nothing that comes from there is taken; the token is another matter."""
        if self.settings.switches_from is SwitchesFrom.LOOPBACK and not _is_loopback(request.remote):
            return (
                "orders are taken from this machine only: run `pgheadroom pause` where the proxy runs, "
                "or set http.switches_from to anywhere, and http.switch_token"
            )
        if is_foreign_page(request.headers.get("Origin"), request.headers.get("Host"), self.settings.trusted_hosts):
            return "this order comes from a page of another site"
        return None


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


def _is_loopback(remote: str | None) -> bool:
    try:
        return remote is not None and ip_address(remote).is_loopback
    except ValueError:
        return False


@web.middleware
async def _errors_in_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as {"error": sentence}; the page and the commands show the sentence as it is."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _error(
            404,
            f"there is nothing at {request.path}; "
            "see /, /status, /history, /recommend, /metrics, /healthz, /readyz, /canary",
        )
    except web.HTTPMethodNotAllowed as refused:
        return _error(405, f"{request.path} takes {' or '.join(sorted(refused.allowed_methods))}")
    except web.HTTPRequestEntityTooLarge:
        return _error(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
    except web.HTTPException as other:
        return _error(other.status, other.reason)
    except Exception:
        log.exception("http_request_failed", path=request.path)
        return _error(500, "this is an error of pgheadroom itself; its log has the details")


def _json(document: dict[str, object], status: int = 200) -> web.Response:
    return web.json_response(document, status=status, headers={"Cache-Control": "no-store"})


def _error(status: int, sentence: str) -> web.Response:
    return _json({"error": sentence}, status)
