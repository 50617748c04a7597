"""Which class is that of customers.

Owns: this guess, for whatever needs one and was told none.
Does not know: what depends on it.
"""

from proxy.service.config.parts import UpstreamPart


def customer_class(part: UpstreamPart) -> str | None:
    """The class of customer traffic: the most important one that shares its server connections and matches somebody.

    Session classes are left out: they are shells and migrations. None where there is no such class.
    """
    candidates = [
        (one.priority, -one.reserved, position, name)
        for position, (name, one) in enumerate(part.classes.items())
        if one.pool_mode != "session" and one.match and name != part.default_class
    ]
    return min(candidates)[-1] if candidates else None
