"""Makes every driver ready, all ecosystems at a time: `python -m tests.clients.install`.

Owns: doing it before the tests ask, so that they need not wait for registries one after the other.
Does not know: what a missing driver means. Each test that needs one asks again, and tells.
"""

from concurrent.futures import ThreadPoolExecutor

from tests.clients.programs import ECOSYSTEMS, Ecosystem
from tests.support.not_here import NotHere


def install(ecosystem: Ecosystem) -> None:
    try:
        ecosystem.make_ready()
    except (NotHere, RuntimeError) as error:
        print(f"the drivers in {ecosystem.name} could not be installed: {error}", flush=True)


if __name__ == "__main__":
    with ThreadPoolExecutor(len(ECOSYSTEMS)) as pool:
        list(pool.map(install, ECOSYSTEMS))
