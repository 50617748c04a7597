"""What the server says of itself, asked by the proxy: at start, after an outage, and again while running.

Owns: the query for the facts, the rhythm of asking, finding out whether a backend that does not answer still lives.
Does not know: what the budget makes of the facts.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Final

import structlog

from proxy.service.config.upstream_url import UpstreamUrl
from proxy.service.server_facts import ServerFacts, ServerUnreachable, Strangers
from proxy.service.wiring import upstream_settings
from proxy.session.connector import Connector
from proxy.session.internal import InternalSlot, NoInternalSlot, own_pool
from proxy.session.measures import Measures
from proxy.session.own_query import OwnQuery, OwnQueryFailed, Row
from proxy.session.pool import Pool
from proxy.session.registry import Registry
from proxy.session.server import ServerConnection
from proxy.session.settings import PoolSettings, UpstreamSettings
from proxy.session.tasks import TaskGroup
from proxy.session.upstream import Upstream

log = structlog.get_logger("pgheadroom.server")

RECHECK_SECONDS: Final = 60.0
_QUERY_TIMEOUT_SECONDS: Final = 10.0

_NO_FACTS: Final = "the server was asked for its limits and did not answer with them; is it PostgreSQL?"

# An ordinary user may not see the backend_type of others, but sees their user and database. The server's own processes
# lack one or the other (the launcher of logical replication has a user), and only clients count in max_connections.
_FACTS_SQL: Final = """
with others as (
  select pid, application_name, usename, host(client_addr) as address, datname = current_database() as is_here
    from pg_catalog.pg_stat_activity
   where coalesce(backend_type, 'client backend') = 'client backend' and usesysid is not null and datid is not null
     and pid <> all ('{{{own}}}'::int[]) and pid <> pg_backend_pid())
select current_setting('max_connections'), current_setting('superuser_reserved_connections'),
       coalesce(current_setting('reserved_connections', true), '0'), current_setting('server_version_num'),
       (select count(*) from others),
       (select datconnlimit from pg_catalog.pg_database where datname = current_database()), pg_backend_pid(),
       (select coalesce(json_agg(json_build_array(pid, application_name, usename, address, is_here)), '[]')
         from (select * from others limit {listed}) listed)
"""
_LISTED: Final = 1000  # connections of others that are looked at one by one
_STRANGERS_KEPT: Final = 20


async def read_facts(pool: Pool, own_process_ids: Callable[[], Iterable[int]]) -> ServerFacts:
    """Ask the server over `pool`. Raises ServerUnreachable with a sentence for people.

    `own_process_ids` is asked before and after: what is dialled meanwhile is nobody else's.
    """
    before = set(own_process_ids())
    sql = _FACTS_SQL.format(own=",".join(map(str, before)), listed=_LISTED)
    query = OwnQuery(pool, sql, timeout_seconds=_QUERY_TIMEOUT_SECONDS)
    try:
        rows = await query.run()
    except OwnQueryFailed as failure:
        raise ServerUnreachable(_sentence(failure)) from failure
    try:
        (row,) = rows
        return _facts(row, query.process_id, before.union(own_process_ids()))
    except (ValueError, IndexError, TypeError) as error:
        raise ServerUnreachable(_NO_FACTS) from error


def _sentence(failure: OwnQueryFailed) -> str:
    fields = failure.fields
    place = f" ({fields.detail})" if fields.detail else ""
    return f"{fields.message}{place}"


def _facts(row: Row, process_id: int, own: Collection[int]) -> ServerFacts:
    numbers = [int(column or 0) for column in row[:7]]
    limit = numbers[5]
    listed = json.loads(row[7] or "[]")
    others = [one for one in listed if one[0] not in own]
    kinds = Counter((str(name or ""), str(user or ""), str(address or "")) for _, name, user, address, _ in others)
    ranked = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    return ServerFacts(
        max_connections=numbers[0],
        superuser_reserved_connections=numbers[1],
        reserved_connections=numbers[2],
        server_version=numbers[3],
        external_connections=numbers[4] - (len(listed) - len(others)),
        database_connection_limit=limit if limit >= 0 else None,
        is_behind_pooler=numbers[6] != process_id,
        external_in_database=sum(bool(is_here) for *_, is_here in others),
        strangers=tuple(Strangers(*kind, count) for kind, count in ranked[:_STRANGERS_KEPT]),
    )


class ServerWatch:
    """Knows the server's facts and tells when they are new; tries a server that is down until it answers."""

    def __init__(self, upstream: Upstream, learnt: Callable[[ServerFacts], None]) -> None:
        self._upstream = upstream
        self._learnt = learnt
        self.facts: ServerFacts | None = None
        self._unresponsive: set[ServerConnection] = set()
        upstream.registry.on_unresponsive = self.backend_does_not_answer

    async def ask(self) -> ServerFacts:
        """One look at the server. Raises ServerUnreachable."""
        upstream = self._upstream
        # Behind a pooler these are the pooler's numbers, and name nobody.
        connections = upstream.registry.connections
        try:
            async with InternalSlot(upstream):
                pool = own_pool(upstream.registry, upstream.settings)
                facts = await read_facts(pool, lambda: [one.process_id for one in connections if one.process_id])
        except NoInternalSlot as refusal:
            raise ServerUnreachable(str(refusal)) from refusal
        self.facts = facts
        self._learnt(facts)
        return facts

    async def run(self) -> None:
        """Ask again every minute, at once when the server went down, and in growing intervals until it is back."""
        connector = self._upstream.registry.connector
        while True:
            try:
                async with asyncio.timeout(RECHECK_SECONDS):
                    await connector.is_down.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(connector.seconds_until_retry)
            await self.ask_and_log()

    async def ask_and_log(self) -> None:
        was_down = self._upstream.registry.connector.down is not None
        try:
            await self.ask()
        except ServerUnreachable as failure:
            log.info("server_does_not_answer", upstream=self._upstream.settings.name, why=str(failure))
        else:
            if was_down:
                log.info("server_answers_again", upstream=self._upstream.settings.name)

    # -- backends that do not go away ---------------------------------------------------------------------------------

    def backend_does_not_answer(self, server: ServerConnection) -> None:
        """A terminated connection is still open on the server's side: it counts until pg_stat_activity says no."""
        if server in self._unresponsive:
            return
        self._unresponsive.add(server)
        log.warning("server_connection_does_not_end", process_id=server.process_id)
        self._upstream.desk.tasks.spawn(self._until_gone(server), name=f"until backend {server.process_id} is gone")

    async def _until_gone(self, server: ServerConnection) -> None:
        pause = self._upstream.registry.settings.gone_timeout_seconds
        try:
            while server.is_open and await self._may_live(server.process_id):
                await asyncio.sleep(pause)
                pause = min(60.0, pause * 2)
        finally:
            self._unresponsive.discard(server)
        if server.is_open:
            server.transport.abort()

    async def _may_live(self, process_id: int) -> bool:
        upstream = self._upstream
        if not process_id:
            return True
        sql = f"select 1 from pg_catalog.pg_stat_activity where pid = {process_id:d}"  # noqa: S608 (a number)
        pool = own_pool(upstream.registry, upstream.settings)
        try:
            async with InternalSlot(upstream):
                return bool(await OwnQuery(pool, sql, timeout_seconds=_QUERY_TIMEOUT_SECONDS).run())
        except (OwnQueryFailed, NoInternalSlot):
            return True  # not known, so it counts


def read_server_facts(url: UpstreamUrl, server_name: str | None = None) -> ServerFacts:
    """One look at the server by a command that is no proxy. Raises ServerUnreachable and TlsFilesUnusable."""
    return asyncio.run(_ask_once(upstream_settings(url, server_name=server_name), url.connect_timeout_seconds))


async def _ask_once(upstream: UpstreamSettings, connect_timeout_seconds: int | None) -> ServerFacts:
    loop = asyncio.get_running_loop()
    settings = PoolSettings(dial_timeout_seconds=connect_timeout_seconds or 5)
    measures = Measures()
    tasks = TaskGroup(loop, measures)
    registry = Registry(Connector(upstream, settings, loop), settings, measures, tasks, loop, Pool)
    registry.set_total(1)
    try:
        return await read_facts(own_pool(registry, upstream), lambda: ())
    finally:
        registry.close_all_idle()
        await tasks.cancel_all()
