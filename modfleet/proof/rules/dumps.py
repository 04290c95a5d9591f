"""The dumps of one moment, and which server copies which."""

from pathlib import Path
from typing import NamedTuple, TypeAlias

from modfleet.proof.history import Dump, read_dumps


class Server(NamedTuple):
    dump: Dump
    keys: dict[str, tuple[int, ...]]


#: By the server's name.
Dumps: TypeAlias = dict[str, Server]


def load_dumps(folder: Path, moment: str) -> Dumps:
    return {dump.server: Server(dump, keys) for dump, keys in read_dumps(folder, moment)}


def master_of(name: str, dumps: Dumps) -> str:
    """Return the master at the top of the server's chain, itself for a master; empty if no dump shows one."""
    for _ in dumps:
        if name not in dumps:
            break
        if not dumps[name].dump.master:
            return name
        name = dumps[name].dump.master
    return ""
