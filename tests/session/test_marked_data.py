"""Many clients on few connections, each in its own hurry: every byte that comes back carries its owner, or nobody.

Clients query, pipeline, copy, listen, fail, cancel and vanish at random moments, and all of what a client is told is
searched for the marks of others: rows, copy data, errors, notices, notifications and parameters.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from proxy.session import clock
from proxy.session.cleaning import Cleaning
from tests.support.running import Running, RunProxy, running_proxy
from tests.support.servers import Postgres
from tests.support.wire_client import (
    COPY_DONE,
    COPY_FAIL,
    FLUSH,
    SYNC,
    WireClient,
    bind,
    copy_data,
    describe,
    execute,
    parse,
    query,
    run,
)

CLIENTS = 24
SECONDS = 3.0
_MARK = re.compile(rb"<owner (\d+)>")


class Owner(WireClient):
    """A client that knows its own mark and looks for others in whatever it reads."""

    number = 0
    seen = 0

    @property
    def mark(self) -> str:
        return f"<owner {self.number}>"

    async def reply(self) -> tuple[str, bytes]:
        kind, payload = await super().reply()
        for found in _MARK.findall(payload):
            assert int(found) == self.number, f"{self.mark} was told, in {kind}: {payload[:200]!r}"
            self.seen += 1
        return kind, payload

    async def reply_or_none(self) -> None:
        """Some of an answer, if any comes soon."""
        try:
            async with asyncio.timeout(0.02):
                await self.reply()
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            pass

    async def rows_are_mine(self, answers: int = 1) -> None:
        """As many answers, and no row without the mark."""
        for _ in range(answers):
            answer = await self.answer()
            assert answer.status, f"{self.mark} was sent away: {answer.errors}"
            assert all(row[0] == self.mark for row in answer.rows), answer.rows


Act = Callable[[Owner, random.Random], Awaitable[None]]


async def ask(client: Owner, chance: random.Random) -> None:
    await client.send(query(f"select '{client.mark}' from generate_series(1, {chance.randint(1, 50)})"))
    await client.rows_are_mine()


async def bind_it(client: Owner, chance: random.Random) -> None:
    await client.send(parse("select $1::text"), bind(client.mark), execute(rows=1), SYNC)
    await client.rows_are_mine()
    await client.send(bind(client.mark), describe(), execute(), SYNC)  # the unnamed statement of before
    await client.rows_are_mine()


async def bind_it_at_once(client: Owner, chance: random.Random) -> None:
    count = chance.randint(1, 6)
    await client.send(*[parse("select $1::text") + bind(client.mark) + execute() + SYNC] * count)
    await client.rows_are_mine(count)


async def transact(client: Owner, chance: random.Random) -> None:
    await client.query(f"begin; set local application_name = '{client.mark}'")
    await client.query(f"insert into marked values ({client.number}, '{client.mark}')")
    await client.send(query(f"select mark from marked where owner = {client.number} limit 5"))
    await client.rows_are_mine()
    await client.query(chance.choice(("commit", "rollback", "rollback")))


async def fail(client: Owner, chance: random.Random) -> None:
    """The error carries the mark."""
    sql = f"select '{client.mark}'::int"
    await client.send(query(sql) if chance.random() < 0.5 else run(sql) + run("select 'skipped'") + SYNC)
    answer = await client.answer()
    assert answer.codes == ["22P02"]
    assert client.mark in answer.errors[0].message


async def fail_in_a_block(client: Owner, chance: random.Random) -> None:
    await client.query(f"begin; select '{client.mark}'::int")
    if chance.random() < 0.5:
        await client.query("rollback")
    else:
        await client.query("commit")


async def copy_out(client: Owner, chance: random.Random) -> None:
    rows = chance.choice((1, 10, 3000))
    await client.send(query(f"copy (select '{client.mark}' from generate_series(1, {rows})) to stdout"))
    answer = await client.answer()
    assert answer.payloads("d") == [client.mark.encode() + b"\n"] * rows


async def copy_in(client: Owner, chance: random.Random) -> None:
    await client.send(query("begin"), query("copy marked from stdin"))
    await client.answer()
    await client.answer("G")
    line = copy_data(f"{client.number}\t{client.mark}\n".encode())
    await client.send(line * chance.randint(1, 100), chance.choice((COPY_DONE, COPY_FAIL)))
    await client.answer()
    await client.query("rollback")


async def listen(client: Owner, chance: random.Random) -> None:
    await client.query(f"listen n{client.number}")
    await client.send(query(f"notify n{client.number}, '{client.mark}'"))
    await client.answer()
    await client.query("unlisten *")


async def notice(client: Owner, chance: random.Random) -> None:
    answer = await client.query(f"do $$ begin raise notice '{client.mark}'; end $$")
    assert [one.message for one in answer.notices] == [client.mark]


async def name_itself(client: Owner, chance: random.Random) -> None:
    await client.query(f"set application_name = '{client.mark}'")
    await client.send(query("show application_name"))
    await client.rows_are_mine()


async def cancel(client: Owner, chance: random.Random) -> None:
    await client.send(query(f"select '{client.mark}' from pg_sleep({chance.choice((0, 0.002, 5))})"))
    await asyncio.sleep(chance.choice((0, 0, 0.001, 0.005)))
    await client.ask_to_cancel()
    while not (answer := await client.answer()).codes and not answer.rows:
        pass
    assert answer.codes in ([], ["57014"])
    assert answer.status == "I"


ACTS: tuple[Act, ...] = (
    *(ask, bind_it, bind_it_at_once, transact, fail, fail_in_a_block, copy_out, copy_in),
    *(listen, notice, name_itself, cancel),
)
# What a client says last, before it vanishes without reading all of the answer.
LAST_WORDS: tuple[Callable[[str], bytes], ...] = (
    lambda mark: query(f"select '{mark}' from generate_series(1, 100000)"),
    lambda mark: query(f"select '{mark}' from pg_sleep(5)"),
    lambda mark: query(f"begin; select '{mark}'"),
    lambda mark: run(f"select '{mark}' from generate_series(1, 1000)") + FLUSH,
    lambda mark: run(f"select '{mark}'"),
    lambda mark: query(f"copy (select '{mark}' from generate_series(1, 100000)) to stdout"),
    lambda mark: query("copy marked from stdin") + copy_data(f"0\t{mark}\n".encode()),
    lambda mark: query(f"select '{mark}'")[:-3],
    lambda mark: run(f"select '{mark}'") + SYNC + query(f"select '{mark}'::int") + query(f"select '{mark}'"),
    lambda mark: query(f"set application_name = '{mark}'") + query(f"select '{mark}'"),
)


async def live(proxy: Running, number: int, seed: int, until: float) -> int:
    """One client after the other with the same mark. Returns how often that was seen."""
    chance, seen = random.Random(f"{seed} {number}"), 0
    while clock.now() < until:
        client = await Owner.open("127.0.0.1", proxy.port)
        client.number = number
        proxy.clients.append(client)
        await client.log_in("app", "app", application_name=f"<owner {number}>")
        for _ in range(chance.randint(0, 6)):
            await chance.choice(ACTS)(client, chance)
        await client.send(chance.choice(LAST_WORDS)(client.mark))
        for _ in range(chance.choice((0, 0, 1, 5))):
            await asyncio.sleep(0)
        if chance.random() < 0.3:
            await client.reply_or_none()
        await client.abort()
        proxy.clients.remove(client)
        seen += client.seen
    return seen


async def crowd(proxy: Running, seed: int, *, seconds: float = SECONDS) -> None:
    setup = await proxy.connect()
    await setup.query("create table if not exists marked (owner int, mark text)")
    until = clock.now() + seconds
    async with asyncio.TaskGroup() as lives:
        seen = [lives.create_task(live(proxy, number, seed, until)) for number in range(CLIENTS)]
    assert all(one.result() for one in seen), "each has seen its own"
    assert await setup.value("select count(*) from marked where mark <> format('<owner %s>', owner)") == "0"
    await setup.query("drop table marked")


FEW: dict[str, object] = {
    "budget": {"total": 5},
    "classes": {"all": {"limit": 4, "queue": {"timeout": "20s"}, "pinned_limit": 3}},
}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_byte_carries_its_owner(run_proxy: RunProxy, seed: int) -> None:
    proxy = await run_proxy(**FEW)
    await crowd(proxy, seed)


async def test_in_statement_and_session_mode_too(run_proxy: RunProxy) -> None:
    """Half of them hold a connection for their whole life."""
    session = {"limit": 2, "pool_mode": "session", "match": [{"application_name": "*[02468]>"}]}
    classes = {"even": {**session, "queue": {"timeout": "20s"}}, "odd": {"limit": 3, "queue": {"timeout": "20s"}}}
    proxy = await run_proxy(budget={"total": 6}, default_class="odd", classes=classes)
    await crowd(proxy, 4)


async def crowd_of_a_moment(upstream_url: str, folder: Path) -> None:
    async with running_proxy(upstream_url, folder, **FEW, shutdown={"drain_timeout": "100ms"}) as proxy:
        await crowd(proxy, 1, seconds=2.0)


async def test_a_connection_that_is_given_back_too_early_is_noticed(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same crowd, and a planted mistake: what a vanished client left running is not ended."""
    monkeypatch.setattr(Cleaning, "_end", Cleaning._give_back)
    with pytest.raises(ExceptionGroup):  # of the crowd: one AssertionError for each who noticed
        await crowd_of_a_moment(postgres.url("app"), tmp_path)
