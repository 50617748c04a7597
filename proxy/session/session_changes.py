"""What a statement would leave in the session: decided before it is sent, settled when it is answered.

Owns: whether a client may be pinned, what is asked of the server or discarded there when the unit of work is over, how
a refused change ends its transaction.
Does not know: which texts change what (`examination`), what a client has left behind so far (`session_state`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxy.session import refusals
from proxy.session.cleaning import Cleaning
from proxy.session.examination import Examination
from proxy.session.local import LocalAnswers
from proxy.session.server import IDLE_STATUS
from proxy.session.session_state import SessionState
from proxy.session.settings import OnSessionState
from proxy.wire.framing import Fact
from proxy.wire.messages import ErrorFields
from proxy.wire.sql import NEVER_CLEARED, PLAIN, PinReason

if TYPE_CHECKING:
    from proxy.session.client import ClientConnection
    from proxy.session.linked import Link


def may_be_sent(link: "Link", seen: Examination, buffer: bytes, facts: Sequence[Fact]) -> bool:
    """To be asked before what changes the session is forwarded. False: it was refused and answered."""
    client, server = link.client, link.server
    state = client.state
    if state is None:
        state = client.state = SessionState(client.identity.parameters)
    assert client.settings is not None, "a linked client has entered"
    state.changed(seen, client.pool.table, client.settings, server.settings)
    link.was_reset = link.was_reset or seen.changes_parameters
    if seen.clearing is not PLAIN:
        state.expect(server, seen)
        if client.listening is not None:
            client.listening.expect(server, seen)
    elif seen.changes_parameters:
        server.retire_at = 0.0  # a RESET whose outcome is not seen: nobody else may get this connection
    if not seen.pins:
        return True
    if client.on_session_state is not OnSessionState.PIN:
        return _goes_unpinned(link, state, seen, buffer, facts)
    return _may_be_pinned(link, state, seen, buffer, facts)


def _may_be_pinned(link: "Link", state: SessionState, seen: Examination, buffer: bytes, facts: Sequence[Fact]) -> bool:
    client = link.client
    if not client.is_unbounded and not client.session_hold:
        refusal = client.gate.request_pin(client.id)
        if refusal is not None:
            _refuse(link, refusals.refused(refusal, "ERROR"), buffer, facts)
            return False
        if not (link.server.awaiting or link.unsynced):
            client.tell_what_would_have_been()
        client.is_unbounded = True
    for reason in seen.pins - state.pins:
        client.desk.measures.pins[client.class_name, reason.value] += 1
    state.pins |= seen.pins
    return True


def _goes_unpinned(link: "Link", state: SessionState, seen: Examination, buffer: bytes, facts: Sequence[Fact]) -> bool:
    """The class rejects what cannot follow the client, or lets it go with the transaction."""
    client = link.client
    if client.on_session_state is OnSessionState.REJECT:
        _refuse(link, refusals.session_state_rejected(client.class_name, seen.pins), buffer, facts)
        return False
    state.ignored = True
    if seen.pins & NEVER_CLEARED:
        link.server.retire_at = 0.0
    return True


# -- refused --------------------------------------------------------------------------------------------------------


def _refuse(link: "Link", error: ErrorFields, buffer: bytes, facts: Sequence[Fact]) -> None:
    """The transaction ends on the server now, and for the client at its COMMIT or ROLLBACK."""
    client, server = link.client, link.server
    if server.awaiting or link.unsynced:
        link.fail(error)
        return
    in_block = server.last_status != IDLE_STATUS
    client.keep(buffer, facts)
    client.hands_over_for_cleaning()
    Cleaning(server, client.pool, client.upstream.canceller, lambda: _cleaned(client, in_block, error)).begin(
        is_dirty=client.state is not None and client.state.is_dirty, is_mid_message=client.is_mid_message()
    )


def _cleaned(client: "ClientConnection", in_block: bool, error: ErrorFields) -> None:
    client.slot_over()
    if client.is_gone:
        return
    if in_block:
        client.local = LocalAnswers(client)
        client.local.enter_failed_block()
    client.refuse_unit(error)


# -- answered -------------------------------------------------------------------------------------------------------


def answered(link: "Link", state: SessionState, failed: bool) -> None:
    """What was to clear session state, or a RESET, is answered: pins may go, startup parameters come back."""
    client, server = link.client, link.server
    if state.lost_its_last_pin(server, failed) and not client.session_hold:
        client.is_unbounded = False
        client.gate.unpin(client.id)
    told = state.bring_back_startup_parameters(server, client.pool.table)
    if told:
        client.transport.write(told)
    server.tells_ready = state.is_resetting


def settle(link: "Link", state: SessionState) -> None:
    """The unit of work is over but for this: ask the server what became of parameters, or discard what is left."""
    client, server = link.client, link.server
    if state.unsure:
        client.desk.measures.parameters_asked += 1
        server.transport.write(server.inject_question(state.ask()))
        return
    if server.settings is not client.settings:
        # Noted first: those of the connection are gone with the rest.
        client.settings_changed(server.settings, was_reset=link.was_reset)
    state.ignored, state.was_discarded = False, True
    server.statements.all_deallocated()
    server.transport.write(server.inject("DISCARD ALL", want=client.pool.table.neutral))


def is_told(link: "Link", state: SessionState, error: ErrorFields | None) -> bool:
    """The answer to a question of ours, of which the client knows nothing. False: it is not over yet."""
    client, server = link.client, link.server
    if server.last_status != IDLE_STATUS and state.failure is None:
        # The question has failed: its transaction is not the client's to end.
        state.failure = error
        server.transport.write(server.inject("ROLLBACK"))
        return False
    if not state.learn(server, client.pool.table):
        state.pins |= {PinReason.SET}
        client.desk.measures.pins[client.class_name, PinReason.SET.value] += 1
        client.is_unbounded = True
        client.gate.note_pinned(client.id)
    return True
