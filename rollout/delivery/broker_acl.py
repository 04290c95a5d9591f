"""Users of a Redis or Valkey broker, so that a node reads no other node's commands. Needs Redis 7 or Valkey 7.2.

Keys and commands are those that an agent uses with kombu 5.7 and Celery 5.7, also after a restart, and no others:
`tests/integration/broker` runs one under them, and the broker must not have refused it anything. Only what Redis 7.0
knows: a server does not start with a line that names a command which it lacks. No scripts: one that
runs for ever stops the broker for all, and a script that has written cannot be killed.
"""

from hashlib import sha256

from rollout.agent.publisher import transport_options
from rollout.messages import HEARTBEATS, REPORTS, cancel_queue_for, queue_for

CONTROL_USER = "modfleet"
OPERATOR_USER = "operator"
#: kombu keeps a list for each priority: after two control characters, which no node's name has, comes its step.
_PRIORITIES = "[^-A-Za-z0-9_.][^-A-Za-z0-9_.][369]"
_CONNECTION = "+hello +auth +ping +select +time +multi +exec +watch +unwatch"
_QUEUES = "+brpop +lpush +rpush +llen +sadd"
_UNACKNOWLEDGED = "+hget +hset +hdel +zadd +zrem +zrange"


def user_of(node: str) -> str:
    return f"node.{node}"


def node_line(node: str, password: str) -> str:
    """A line of the broker's ACL file: takes from the node's own queues, and puts into those of the control plane."""
    queues = (queue_for(node), cancel_queue_for(node))
    options = transport_options(node)
    keys = [
        *queues,
        *(f"{queue}{_PRIORITIES}" for queue in queues),
        *(f"{prefix}.{queue}" for queue in queues for prefix in ("_kombu.binding", "_kombu.binding_permanent")),
        *(str(options[name]) for name in ("unacked_key", "unacked_index_key", "unacked_mutex_key")),
    ]
    own = " ".join(f"~{key}" for key in keys)
    rights = f"resetchannels {own} -@all {_CONNECTION} {_QUEUES} {_UNACKNOWLEDGED}"
    # Rights of their own: what may be done to the node's keys must not be done to these.
    put = f"(%W~{REPORTS} %W~{HEARTBEATS} -@all +lpush)"
    return f"{_user(user_of(node), password)} {rights} {put}"


def control_line(password: str) -> str:
    """The line of the control plane's own processes: all queues, and nothing that could harm the broker."""
    return f"{_user(CONTROL_USER, password)} ~* &* +@all -@admin -@dangerous"


def operator_line(password: str) -> str:
    """The line of the person who looks after the broker: loads the ACL file anew, sees and ends connections.

    It may change any user, so it could do everything; what it needs no further right for leaves the queues alone.
    """
    looks = "+hello +auth +ping +info +dbsize +llen +memory|usage +slowlog|get +latency|doctor +config|get +client|list"
    return f"{_user(OPERATOR_USER, password)} resetchannels %R~* -@all {looks} +client|kill +client|no-evict +acl"


def _user(name: str, password: str) -> str:
    return f"user {name} on #{sha256(password.encode()).hexdigest()}"
