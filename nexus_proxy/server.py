"""The composition root: picks the stores, wires the routes, opens and closes everything in order.

Strategy: what is opened later depends on what was opened earlier, so one exit stack closes it all the other way
round. The listeners open last, when the ledger has resolved what a dead process left open, and close first.
"""

import asyncio
import functools
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import structlog
import uvloop
from aiohttp import web
from structlog.typing import FilteringBoundLogger

from nexus_proxy.admin.application import application
from nexus_proxy.admin.socket import AdminSocket
from nexus_proxy.admin.verbs import Admin
from nexus_proxy.api import balance, models
from nexus_proxy.api import health as operators
from nexus_proxy.api.routing import Routing
from nexus_proxy.chain import CHAIN, compose, forward
from nexus_proxy.config import Address, Config
from nexus_proxy.core.control.slots import Slots
from nexus_proxy.ledger.declaration import accept, declarations
from nexus_proxy.ledger.directory import Directory
from nexus_proxy.ledger.open import make_reader, make_store
from nexus_proxy.ledger.protocol import AccountRow, KeyRow, Outcome, Reader, ToppedUp
from nexus_proxy.ledger.writer import Writer
from nexus_proxy.limiter.open import make_limiter
from nexus_proxy.limiter.protocol import WINDOW_NS, Limiter
from nexus_proxy.observe.log import Logger, configure
from nexus_proxy.observe.log_writer import ExchangeLog, Redactor, nowhere
from nexus_proxy.observe.metrics import Metrics
from nexus_proxy.observe.request_log import RequestLog
from nexus_proxy.request.appkeys import SERVICES
from nexus_proxy.request.context import COMPLETIONS, RequestContext
from nexus_proxy.request.services import Readiness, Services
from nexus_proxy.request.setup import Setup
from nexus_proxy.runtime import native
from nexus_proxy.runtime.clock import now_ms
from nexus_proxy.runtime.timeouts import TimeoutQueue
from nexus_proxy.upstream.pool import Upstream
from nexus_proxy.upstream.supervisor import Supervisor
from nexus_proxy.web.incoming import IncomingRequest
from nexus_proxy.web.protocol import FastPath, ListenerRunner
from nexus_proxy.web.response import Reply

BACKLOG = 1024
COMPLETIONS_PATH = "/v1/chat/completions"
WATCH_EVERY_S = 0.5
EXIT_BROKEN = 1
# Reference counts free most of what a request makes, so the old generations are collected seldom: a collection takes
# longer the more objects there are. Generation 0 is collected every 2,000 allocations: 20,000, as 240 streams that open
# make, hold the loop for 3 ms.
GC_THRESHOLD = (2_000, 500, 100)


class Server:
    """One server: the clients' listener, the operators', the admins' socket, and the ledger behind them.

    `on_broken` is called when the ledger can no longer be trusted; the process must end then. Without a log nothing
    is logged.
    """

    def __init__(
        self,
        config: Config,
        *,
        log: Logger | None = None,
        metrics: Metrics | None = None,
        on_broken: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.config = config
        self.port = self.admin_port = 0
        self.directory = Directory()
        self.metrics = metrics or metrics_of(config)
        self.readiness = Readiness()
        self.supervisor = Supervisor(self._fault)
        self.upstreams: dict[str, Upstream] = {}
        self.ledger: Writer
        self.reader: Reader
        self.admin: Admin
        self._logger: FilteringBoundLogger = log.bound if log else structlog.wrap_logger(structlog.ReturnLogger())
        self._exchange_log = log.exchanges if log else ExchangeLog(nowhere, Redactor())
        self._on_broken = on_broken or self._fault
        self._stack = AsyncExitStack()
        self._runner: ListenerRunner | None = None
        self._site: web.SockSite | None = None

    async def start(self) -> None:
        """Open everything. LedgerError, OSError if an address is taken; then nothing stays open."""
        try:
            await self._open_ledger()
            limiter = await self._open_limiter()
            self._open_upstreams()
            await self._open_admins()
            services = self._services(limiter)
            await self._open_operators(services)
            await self._open_clients(services)
        except BaseException:
            await self._stack.aclose()
            raise
        self._logger.info(
            "serving",
            port=self.port,
            admin_port=self.admin_port,
            models=len(self.config.models),
            compiled=native.in_use(),
        )

    async def stop(self) -> None:
        """Take nothing new, let open answers finish within the limit, close everything."""
        self.readiness.shutting_down = True
        if self._site is not None:
            await self._site.stop()
        if self._runner is not None and self._runner.server is not None:
            self._runner.server.pre_shutdown()
        stopped = await self.supervisor.finish(self.config.server.timeouts.shutdown_s)
        await self._stack.aclose()
        if self.ledger.spooled or self.ledger.unsaved:
            self._logger.error("settlements_left", spooled=self.ledger.spooled, unsaved=self.ledger.unsaved)
        self._logger.info("stopped", cut_short=stopped)

    # --- in opening order -------------------------------------------------------------------------------------

    async def _open_ledger(self) -> None:
        config = self.config
        self.ledger = Writer(
            make_store(config.ledger),
            loop=asyncio.get_running_loop(),
            commit_timeout_s=config.server.timeouts.commit_s,
            on_broken=self._on_broken,
        )
        self.ledger.observe = self.metrics.batch
        self.ledger.on_unclaimed = self._learn
        recovered = await self.ledger.start()
        self._stack.push_async_callback(self.ledger.stop)
        if recovered:
            self.metrics.recovered(recovered)
            self._logger.warning("recovered", holds=recovered)
        for operation in declarations(config, now_ms()):
            accept(await self.ledger.run(operation))
        self.reader = make_reader(config.ledger)
        self._stack.push_async_callback(self.reader.close)
        self.directory = Directory(await self.reader.accounts(), await self.reader.keys())

    async def _open_limiter(self) -> Limiter:
        """Seed the windows, so that a restart gives nobody a second minute."""
        limiter = make_limiter()
        self._stack.push_async_callback(limiter.close)
        wall_ms, now_ns = now_ms(), time.monotonic_ns()
        times: dict[str, list[int]] = {}
        for row in await self.reader.recent(wall_ms - WINDOW_NS // 1_000_000):
            then_ns = now_ns - (wall_ms - row.opened_ms) * 1_000_000
            times.setdefault(f"account:{row.account_id}", []).append(then_ns)
            times.setdefault(f"key:{row.key_id}", []).append(then_ns)
        for subject, seen in times.items():
            await limiter.seed(subject, seen, now_ns)
        return limiter

    def _open_upstreams(self) -> None:
        connect_s = self.config.server.timeouts.connect_s
        for provider in self.config.providers.values():
            upstream = Upstream(provider, connect_s=connect_s)
            self.upstreams[provider.name] = upstream
            self._stack.callback(upstream.close)
        # Whatever began while the listener was closing ends before its connections do.
        self._stack.push_async_callback(self.supervisor.finish, 0.0)

    async def _open_admins(self) -> None:
        self.admin = Admin(self.ledger, self.reader, self.directory, self.config, now_ms)
        admins = AdminSocket(application(self.admin), self.config.ledger.path)
        await admins.start()
        self._stack.push_async_callback(admins.stop)

    def _services(self, limiter: Limiter) -> Services:
        limits, timeouts = self.config.server.limits, self.config.server.timeouts
        loop = asyncio.get_running_loop()
        setup = Setup(
            config=self.config,
            upstreams=self.upstreams,
            commits=TimeoutQueue(loop, timeouts.commit_s),
            first_bytes=TimeoutQueue(loop, timeouts.first_byte_s),
        )
        return Services(
            setup=setup,
            directory=self.directory,
            drains=Slots(limits.drains, self.metrics.drains),
            bodies=Slots(limits.bodies_bytes),
            large_body=asyncio.Lock(),
            ledger=self.ledger,
            limiter=limiter,
            logger=self._logger,
            loop=loop,
            metrics=self.metrics,
            observers=(self.metrics, RequestLog(self._logger, self._exchange_log)),
            reader=self.reader,
            readiness=self.readiness,
            supervisor=self.supervisor,
        )

    async def _open_operators(self, services: Services) -> None:
        app = operators.application()
        app[SERVICES] = services
        runner = ListenerRunner(app, self.config.server.timeouts, self.config.server.limits)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        listening = _bind(self.config.server.admin_listen)
        await web.SockSite(runner, listening, backlog=BACKLOG).start()
        self.admin_port = listening.getsockname()[1]
        watch = asyncio.get_running_loop().create_task(self._watch())
        self._stack.push_async_callback(_cancel, watch)

    async def _open_clients(self, services: Services) -> None:
        config = self.config
        routing = _routing()
        complete = compose(CHAIN, forward)

        def serve(incoming: IncomingRequest) -> Awaitable[Reply]:
            return complete(RequestContext(services, incoming, COMPLETIONS))

        async def serve_framed(request: web.Request, incoming: IncomingRequest) -> Reply:
            found = await routing.find(request)
            return await found.handler(RequestContext(services, incoming, found.route, found.parameter))

        fast_path = FastPath(f"POST {COMPLETIONS_PATH} HTTP/1.1\r\n".encode(), serve, serve_framed)
        runner = ListenerRunner(web.Application(), config.server.timeouts, config.server.limits, fast_path)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        listening = _bind(config.server.listen)
        self._site = web.SockSite(runner, listening, backlog=BACKLOG)
        await self._site.start()
        self._runner = runner
        self.port = listening.getsockname()[1]

    # --- watching ---------------------------------------------------------------------------------------------

    def _learn(self, outcome: Outcome) -> None:
        """Take in what an admin changed who had given up waiting for it."""
        match outcome:
            case AccountRow() as account:
                self.directory.put_account(account)
            case ToppedUp(account=account):
                self.directory.put_account(account)
            case KeyRow() as key:
                self.directory.put_key(key)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        writable = True
        while True:
            due = loop.time() + WATCH_EVERY_S
            await asyncio.sleep(WATCH_EVERY_S)
            self.metrics.lag(max(0.0, loop.time() - due))
            self.metrics.open_exchanges(len(self.supervisor))
            self.metrics.ledger(busy=self.ledger.busy, withdrawn=self.ledger.withdrawn)
            if writable is not self.ledger.writable:
                writable = self.ledger.writable
                (self._logger.info if writable else self._logger.error)("ledger_writable", writable=writable)

    def _fault(self, fault: BaseException) -> None:
        self._logger.error("fault", exc_info=fault)


def metrics_of(config: Config) -> Metrics:
    """Return metrics for what is configured."""
    return Metrics({model.id: model.provider for model in config.models.values()})


def _routing() -> Routing:
    """Return everything that is served."""
    routing = Routing(functools.partial(compose, CHAIN))
    routing.add("POST", COMPLETIONS_PATH, COMPLETIONS, forward)
    routing.add("GET", "/v1/models", "models", models.list_models)
    routing.add("GET", "/v1/models/{parameter:.+}", "model", models.retrieve_model)
    routing.add("GET", "/v1/balance", "balance", balance.balance)
    return routing


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address.host, address.port))
    except OSError as error:
        listening.close()
        raise OSError(f"cannot listen on {address.host}:{address.port}: {error.strerror}") from None
    return listening


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code. LedgerError, OSError if it cannot start."""
    return uvloop.run(_serve(config))


async def _serve(config: Config) -> int:
    metrics = metrics_of(config)
    log = configure(sys.stdout.fileno(), secrets=[provider.api_key for provider in config.providers.values()])
    log.on_dropped = metrics.lines_dropped

    def broken(fault: BaseException) -> None:
        # Nothing that follows could be trusted, a tidy end included: fail at once, recovery sorts it out.
        log.bound.critical("ledger_broken", fault=f"{type(fault).__name__}: {fault}")
        log.close()
        os._exit(EXIT_BROKEN)

    server = Server(config, log=log, metrics=metrics, on_broken=broken)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gc.disable()  # what is made at the start stays: to look for garbage in it again and again takes a third of the time
    try:
        await server.start()
        gc.collect()
        gc.freeze()  # nor need the collector look at it later
        gc.set_threshold(*GC_THRESHOLD)
        gc.enable()
        await stop.wait()
        await server.stop()
    finally:
        gc.enable()
        log.close()
    return EXIT_BROKEN if server.ledger.unsaved else 0
