"""The state of the server as each step of an operation needs it."""

from collections.abc import Mapping
from dataclasses import dataclass

from rollout.agent.server.observation import product
from rollout.agent.server.session import LoadedModule, Session
from rollout.agent.server.texts import storable


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """The state of the server; all empty while the server cannot be reached. `run_id` names its process."""

    server: str = ""
    version: str = ""
    redis_version: str = ""
    role: str = ""
    run_id: str = ""
    modules: tuple[LoadedModule, ...] = ()


def observe(session: Session) -> ServerFacts:
    """Ask the server for its state."""
    return facts_from(session.info("server") | session.info("replication"), session.modules())


def facts_from(info: Mapping[str, str], modules: tuple[LoadedModule, ...]) -> ServerFacts:
    """Return the facts in the sections `server` and `replication` of INFO."""
    server, version = product(info)
    return ServerFacts(
        server=server,
        version=storable(version),
        redis_version=storable(info.get("redis_version", "")),
        role="master" if info.get("role") == "master" else "replica",
        run_id=info.get("run_id", ""),
        modules=modules,
    )
