"""All hubs of one upstream: which databases are listened to over a shared connection.

Owns: how many there may be, and which databases the server does not let the proxy into.
Does not know: channels (`listen_channels`), their connections (`listen_hub`), clients (`listening`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from proxy.session import clock
from proxy.session.listen_hub import ListenHub
from proxy.session.pool import Pool
from proxy.wire.login import Credentials
from proxy.wire.messages import ErrorFields

if TYPE_CHECKING:
    from proxy.session.upstream import Upstream

log = structlog.get_logger("pgheadroom.listen")

_ASK_AGAIN_SECONDS: Final = 60.0  # a database that refused the proxy's login is tried again after that
_OWN_POOL: Final = "\0listen"  # no client can have this name, so no client's credentials get mixed with ours


@dataclass(frozen=True, slots=True)
class ListenCounts:
    """What is shared now: connections that listen (not those that are lost and come back), channels, clients."""

    connections: int = 0
    channels: int = 0
    clients: int = 0


class ListenHubs:
    """The hubs by database. `count_changed` is told how many slots they need, before the first of them is asked for."""

    def __init__(self, upstream: "Upstream") -> None:
        self._upstream = upstream
        self._hubs: dict[str, ListenHub] = {}
        self._refused: dict[str, float] = {}
        self.count_changed: Callable[[int], None] = _nobody_asks

    def __len__(self) -> int:
        return len(self._hubs)

    @property
    def is_on(self) -> bool:
        return self._upstream.registry.settings.listen_connections > 0

    def counts(self) -> ListenCounts:
        hubs = self._hubs.values()
        return ListenCounts(
            connections=sum(hub.is_up for hub in hubs),
            channels=sum(len(hub.channels) for hub in hubs),
            clients=sum(len(hub.channels.listeners) for hub in hubs),
        )

    def hub_or_none(self, database: str) -> ListenHub | None:
        """None: who listens there keeps a connection of its own."""
        hub = self._hubs.get(database)
        if hub is not None:
            return hub
        if not self._has_room() or self._is_refused(database):
            return None
        hub = self._hubs[database] = ListenHub(self._upstream, database, self._pool(database), self._over)
        self.count_changed(len(self._hubs))
        return hub

    def _has_room(self) -> bool:
        """Also in the budget: one slot for this, one for the proxy's queries, and one at least for everybody else."""
        wanted, registry = len(self._hubs) + 1, self._upstream.registry
        return wanted <= registry.settings.listen_connections and wanted + 2 <= registry.total

    def refused_by_server(self, database: str, error: ErrorFields) -> None:
        """The proxy's own user may not log in there."""
        self._refused[database] = clock.now() + _ASK_AGAIN_SECONDS
        log.warning("shared_listen_login_refused", database=database, code=error.code, error=error.message)

    def close(self) -> None:
        for hub in list(self._hubs.values()):
            hub.close()

    def _is_refused(self, database: str) -> bool:
        if self._refused.get(database, 0.0) > clock.now():
            return True
        self._refused.pop(database, None)
        return False

    def _pool(self, database: str) -> Pool:
        registry, upstream = self._upstream.registry, self._upstream.settings
        pool = registry.pools.get((database, _OWN_POOL))
        if pool is None:
            pool = registry.pools[database, _OWN_POOL] = Pool(registry, database, upstream.user)
            pool.credentials = Credentials(password=upstream.password)
        return pool

    def _over(self, hub: ListenHub) -> None:
        del self._hubs[hub.database]
        pools = self._upstream.registry.pools
        pool = pools.get((hub.database, _OWN_POOL))
        if pool is not None and pool.is_unused:
            del pools[hub.database, _OWN_POOL]
        self.count_changed(len(self._hubs))


def _nobody_asks(count: int) -> None: ...
