"""`modfleet nodes --tree`: the shards of the fleet, each from its master down to the replicas of its replicas."""

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from modfleet.client import Document
from modfleet.commands.session import printable, table


def shards_in_a_tree(nodes: list[Document], ignored: list[Document]) -> RenderableType:
    """Return the shards by name, then the nodes whose place is not known, then the ignored replicas.

    A control plane of the previous version does not send the fields of shards.
    """
    shards: dict[str, list[Document]] = {}
    for each in nodes:
        if each.get("shard") is not None:
            shards.setdefault(each["shard"], []).append(each)
    parts: list[RenderableType] = [_tree(members) for _, members in sorted(shards.items())]
    parts += [_line(f"{each['name']}: its place is not known") for each in nodes if each.get("shard") is None]
    if ignored:
        rows = (
            (each["address"], each["reason"], each["actor"], each["ignored_at"], ", ".join(each["masters"]))
            for each in ignored
        )
        parts += ["", table(("IGNORED REPLICA", "REASON", "BY", "SINCE", "REPLICA OF"), rows)]
    return Group(*parts)


def _tree(members: list[Document]) -> Tree:
    members = sorted(members, key=lambda each: (each["depth"], each["name"]))
    top = members[0] if members[0]["depth"] == 0 else None
    words = f"{members[0]['master']}: unmanaged master" if top is None else _node_in_words(top)
    sentinels = max((each["sentinels"] or 0 for each in members), default=0)
    watched = f", watched by {sentinels} Sentinel{'s' if sentinels > 1 else ''}" if sentinels else ""
    root = Tree(_line(words + watched))
    branches: dict[str, Tree] = {} if top is None else {top["name"]: root}
    strangers: list[tuple[Tree, Tree]] = []
    for each in members:
        if each is not top:
            branches[each["name"]] = branches.get(each["master"], root).add(_line(_node_in_words(each)))
        for kind in ("unmanaged", "ignored"):
            for address in each[f"{kind}_replicas"]:  # nodes may copy them
                branches[address] = Tree(_line(f"{address}: {kind} replica"))
                strangers.append((branches[each["name"]], branches[address]))
    for above, stranger in strangers:
        above.children.append(stranger)
    return root


def _node_in_words(node: Document) -> str:
    words = [node["role"] or "role not known"]
    words += [node["phase"]] if node["phase"] != "online" else []
    not_ready = f". {node['not_ready']['message']}" if node["not_ready"] else ""
    return f"{node['name']}: {', '.join(words)}{not_ready}"


def _line(words: str) -> Text:
    return Text(printable(words))
