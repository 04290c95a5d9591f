"""The members of a package, and its content digest. Used by the control plane and by the agents."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file of a package: its path inside the zip, its size in bytes, the SHA-256 of its content in hex."""

    path: str
    size: int
    sha256: str


def files_digest(members: Iterable[Member]) -> str:
    """Return the identity of all files but `module.json`, which `modfleet pack` writes into it."""
    return content_digest(each for each in members if each.path != "module.json")


def content_digest(members: Iterable[Member]) -> str:
    """Return the identity of a build in hex. It does not depend on the zip's timestamps, order and compression."""
    digest = hashlib.sha256()
    for member in sorted(members, key=lambda each: each.path):
        digest.update(f"{member.path}\0{member.size}\0{member.sha256}\n".encode())
    return digest.hexdigest()
