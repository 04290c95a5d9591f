"""A database with a fleet, and in it a rollout to a few of the nodes and one to all, both under way.

python -m bench.fill 10 1000          prints a token and the uids of the two
"""

import sys

import django


def main(few: int, many: int) -> None:
    django.setup()
    from django.core.management import call_command

    from accounts.selectors import user_by_login
    from accounts.services import ensure_admin
    from accounts.tokens import issue_token
    from bench.polling import TOKEN_SECONDS
    from eventstore import Append, append
    from rollout.delivery import ingestion
    from rollout.domain.node.events import NodeJoined, node_stream
    from rollout.messages import Heartbeat, Inventory, NodeProfile, to_json

    call_command("migrate", verbosity=0)
    ensure_admin("not-a-secret")
    user = user_by_login("admin")
    assert user
    names = [f"node-{number:04}" for number in range(1, many + 1)]
    profile = NodeProfile(platform="linux/x86_64", server="valkey", server_version="9.1.0", role="master")
    heartbeats = [
        Heartbeat(node=name, hello=True, interval_seconds=3600, profile=profile, inventory=Inventory(sequence=1))
        for name in names
    ]
    for name in names:  # as nodes that joined before messages were signed
        append(Append(node_stream(name), 0, [NodeJoined(node=name, profile=profile)]))
    ingestion.record_heartbeats([to_json(each) for each in heartbeats])
    uids = [_start("few", names[:few]), _start("many", names)]
    print(issue_token(user, ttl=TOKEN_SECONDS), *uids)


def _start(module_name: str, names: list[str]) -> str:
    """A removal: it needs no package."""
    from rollout.domain.request import RolloutRequest
    from rollout.messages import Action
    from rollout.process.advance import advance
    from rollout.services.start import start_rollout

    request = RolloutRequest(action=Action.REMOVE, module_name=module_name, version=1, nodes=tuple(names))
    uid = start_rollout(request)
    advance(uid)
    return uid


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
