"""Users of a Redis or Valkey broker, so that a node cannot read another node's commands. Needs Redis 7 or Valkey 7.2.

The keys and commands are exactly those that an agent uses with kombu 5.7 and Celery 5.7, also after a restart:
`tests/integration/broker` runs an agent with them, and the broker must refuse nothing. All are commands of Redis 7.0:
a server does not start with a line that names an unknown command. Scripts are not allowed: one that never ends blocks
the broker for all, and a script that has written cannot be killed.
"""

from collections.abc import Iterable
from hashlib import sha256

from rollout.agent.control_plane.publisher import transport_options
from rollout.messages import HEARTBEATS, REPORTS, cancel_queue_for, queue_for

CONTROL_USER = "modfleet"
OPERATOR_USER = "operator"
ADMINISTRATOR_USER = "relay"
#: kombu has a list for each priority. Its name ends in two control characters, which no node name has, and a number.
_PRIORITIES = tuple(f"\x06\x16{each}" for each in (3, 6, 9))
_CONNECTION = "+hello +auth +ping +select +time +multi +exec +watch +unwatch"
_QUEUES = "+brpop +lpush +rpush +llen +sadd"
_UNACKNOWLEDGED = "+hget +hset +hdel +zadd +zrem +zrange"


def user_of(node: str) -> str:
    return f"node.{node}"


def node_line(node: str, password: str) -> str:
    """Return the ACL line of a node: it reads its own queues, and writes to the queues of the control plane.

    The line has no control characters, so that it can be copied from a terminal.
    """
    rules = " ".join(node_rules(node, [_hash(password)]))
    return f"user {user_of(node)} {rules}".replace("\x06\x16", "[^-A-Za-z0-9_.][^-A-Za-z0-9_.]")


def keys_of(node: str) -> tuple[str, ...]:
    """Return all keys that a node's user may create for itself, its two queues first."""
    queues = (queue_for(node), cancel_queue_for(node))
    options = transport_options(node)
    return (
        *queues,
        *(f"{queue}{priority}" for queue in queues for priority in _PRIORITIES),
        *(f"{prefix}.{queue}" for queue in queues for prefix in ("_kombu.binding", "_kombu.binding_permanent")),
        *(str(options[name]) for name in ("unacked_key", "unacked_index_key", "unacked_mutex_key")),
    )


def node_rules(node: str, password_hashes: Iterable[str]) -> tuple[str, ...]:
    """Return the rules of a node's user, as the arguments of ACL SETUSER."""
    own = (f"~{key}" for key in keys_of(node))
    rights = f"-@all {_CONNECTION} {_QUEUES} {_UNACKNOWLEDGED}".split()
    # A selector of its own: the rights on the node's keys must not hold for these keys.
    put = f"(%W~{REPORTS} %W~{HEARTBEATS} -@all +lpush)"
    return ("on", *(f"#{each}" for each in password_hashes), "resetchannels", *own, *rights, put)


def control_line(password: str) -> str:
    """Return the ACL line of the control plane's processes: all queues, and no command that could harm the broker."""
    return f"{_user(CONTROL_USER, password)} ~* &* +@all -@admin -@dangerous"


def operator_line(password: str) -> str:
    """Return the ACL line of the broker's operator: may reload the ACL file, and see and end connections.

    It may change any user, so it could give itself all rights. With the rights in this line it cannot change queues.
    """
    views = "+hello +auth +ping +info +dbsize +llen +memory|usage +slowlog|get +latency|doctor +config|get +client|list"
    return f"{_user(OPERATOR_USER, password)} resetchannels %R~* -@all {views} +client|kill +client|no-evict +acl"


def administrator_line(password: str) -> str:
    """Return the ACL line of the relay: it creates the users of nodes, and deletes their keys."""
    rights = "+hello +auth +ping +select +info +acl|setuser +acl|deluser +acl|users +del"
    keys = "~node.* ~cancel.* ~_kombu.binding*.node.* ~_kombu.binding*.cancel.* ~unacked*.node.*"
    return f"{_user(ADMINISTRATOR_USER, password)} resetchannels {keys} -@all {rights}"


def _user(name: str, password: str) -> str:
    return f"user {name} on #{_hash(password)}"


def _hash(password: str) -> str:
    return sha256(password.encode()).hexdigest()
