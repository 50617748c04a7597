"""Which identities are shown: a few of each order, however many there are."""

from proxy.service.traffic.nested_acquire import Identity
from proxy.service.view import IdentityUse, top_identities


def use(name: str, connections: int = 1, slots: int = 0, waiting: int = 0) -> IdentityUse:
    return IdentityUse(Identity("web", "web", None, name), connections, slots, waiting)


def test_the_top_of_each_order_once():
    crowd = [use(f"idle {number}", connections=2) for number in range(5000)]
    uses = [*crowd, use("many", 900), use("works", 1, 9), use("waits", 1, 0, 7), use("all", 50, 5, 5)]
    names = [one.identity.application_name for one in top_identities(uses, shown=2)]
    assert names == ["works", "all", "waits", "many"]


def test_never_more_than_asked_for_of_each():
    uses = [use(str(number), number + 1, number, number) for number in range(100)]
    assert len(top_identities(uses)) == 10
