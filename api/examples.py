"""Examples in the OpenAPI document: made from each operation's schema, with a value for each field name.

So an example has exactly the fields of its schema, and a new field with a known name needs no change here.
"""

from typing import Any

Schema = dict[str, Any]

MOMENT = "2026-01-31T12:00:00Z"
UID = "5f0c3a9b1d2e4f60718293a4b5c6d7e8"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

#: By field name, or by component and field name where the field name alone is not enough.
VALUES: dict[str, Any] = {
    "domain": "",
    "Degradation.message": "The server at unix:///run/redis/redis.sock cannot be reached: Connection refused.",
    "Degradation.reason": "server_unreachable",
    "Finding.message": "No line of the server's configuration includes the agent's file.",
    "NodeDetail.role": "master",
    "Replica.state": "online",
    "ServerModule.name": "greet",
    "ServerState.message": "",
    "ConfigurationChange.message": "/etc/redis/redis.conf: added `loadmodule /opt/other.so`",
    "ConfigurationChange.kind": "outside",
    "persistence": "include",
    "to_do": "",
    "ServerState.role": "master",
    "address": "10.0.0.7:6379",
    "aof_last_write_status": "ok",
    "args": "",
    "check": "include_line",
    "crash": "",
    "cluster_state": "",
    "enable_module_command": "local",
    "fix": "Add this line to /etc/redis/redis.conf: include /usr/lib/modfleet/node-1/*.conf",
    "link_status": "",
    "master": "",
    "ServerModule.bundled": False,
    "most_called": "greet.hello",
    "ServerModule.sha256": "",
    "ServerModule.line": "",
    "ServerModule.obstacle": "",
    "ServerModule.by_person": False,
    "ServerModule.adopted_from": "",
    "path": "/usr/lib/modfleet/node-1/greet/1/greet.so",
    "problem": "",
    "rdb_last_bgsave_status": "ok",
    "run_id": "2c26b46b68ffc68ff99b453c1d30413413422d70",
    "save_points": "3600 1",
    "would_start": "yes",
    "would_start_reason": "",
    "ControlKey.id": "9f86d081884c7d65",
    "CreatedJoinToken.id": UID,
    "CreatedJoinToken.pattern": None,
    "Enrolled.phase": "pending",
    "purpose": "trust",
    "note": None,
    "IgnoredReplica.reason": "A reporting server, read only",
    "NewIgnoredReplica.reason": "A reporting server, read only",
    "NotReady.message": "The server is loading its data.",
    "shard": "node-1",
    "Node.master": None,
    "NodeDetail.master": None,
    "Replication.role": "master",
    "Replication.replicas": ["10.0.0.7:6379"],
    "addresses": ["10.0.0.5:6379"],
    "network": "a9f0e61a137d86aa9db53465e0801612",
    "replication_id": "5b8f0f5d0d1f6c8f3f4c2a6f7f3f0b9f4d2f7a10",
    "node_id": "07c37dfeb235213a872192d90877d0cd55635b91",
    "master_node_id": "",
    "replica_node_ids": ["292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f"],
    "slots": "93 100-110",
    "source": "10.0.0.5:6379",
    "target": "10.0.0.6:6379",
    "masters": ["node-1"],
    "replicas": ["node-2"],
    "unmanaged_replicas": ["10.0.0.9:6379"],
    "ignored_replicas": [],
    "JoinToken.id": UID,
    "JoinToken.pattern": None,
    "JoinToken.state": "open",
    "agreement": "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo",
    "broker_ca": None,
    "broker_password_sha256": SHA256,
    "broker_url": "rediss://node.node-1@broker.example.com:6379/0",
    "ca": None,
    "command": "modfleet agent install --control https://modfleet.example.com --token mfj1.… --server unix:///run/redis/redis.sock",
    "created_by": "alice",
    "fetch_hosts": ["storage.example.com"],
    "key": "2c26b46b68ffc68f",
    "keys": ["2c26b46b68ffc68f"],
    "pattern": "cache-*",
    "payload": "{}",
    "peer": "9f86d081884c7d65",
    "proof": "fH3wP1m4hYHbIu7o1cWmE3DRQJmYy0yZ5Pe7eVv0J6Q",
    "protocols": [0, 1],
    "public_key": "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo",
    "signature": "fH3wP1m4hYHbIu7o1cWmE3DRQJmYy0yZ5Pe7eVv0J6Q",
    "signing": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    "token": "mfj1.…",
    "access_token": "eyJhbGciOiJIUzI1NiJ9.eyJ1aWQiOjF9.c2lnbmF0dXJl",
    "action_uid": UID,
    "actor": "alice",
    "addr": "10.0.0.7",
    "architecture": "x86_64",
    "auth_method": "regular",
    "bdbs_email_alerts": [],
    "by": "alice",
    "canceled_by": "alice",
    "canary": 1,
    "capabilities": ["types"],
    "commands": [
        {"command_name": "greet.hello", "command_arity": -1, "first_key": 0, "last_key": 0, "step": 0, "flags": []}
    ],
    "command_line_args": "",
    "content_sha256": SHA256,
    "data": {"module_name": "greet", "version": 1},
    "SentEvent.data": '{"position": 42, "type": "rollout.started.v1"}',
    "SentEvent.event": "rollout.started.v1",
    "SentEvent.id": "42",
    "dependencies": [],
    "desired_sha256": SHA256,
    "disabled_reason": "the receiver answered 410",
    "display_name": "Greetings",
    "email": "alice@example.com",
    "error_code": "load_failed",
    "error_message": "The server refused the module.",
    "hash": SHA256,
    "id": "waits_at_gate",
    "joined": [],
    "labels": {"zone": "eu-1"},
    "last_error": "the receiver answered 500",
    "max_failures": 1,
    "max_parallel": 10,
    "min_healthy": "50%",
    "min_redis_version": "7.2",
    "message": "1 of 3 nodes has it.",
    "module_name": "greet",
    "name": "node-1",
    "Action.name": "install_module",
    "Cluster.name": "production",
    "NewUser.name": "alice",
    "User.name": "alice",
    "UserChanges.name": "alice",
    "needs": [],
    "next": None,
    "node": "node-1",
    "node_uid": "",
    "object_name": "module:greet:1",
    "operating_system": "rhel9",
    "origin": "api",
    "os_version": "rhel9",
    "other_modules": ["vectorset"],
    "package_sha256": SHA256,
    "password": "correct horse 1",
    "plan_hash": SHA256,
    "platform": "linux/x86_64",
    "platforms": {"linux/x86_64": {"sha256": SHA256}},
    "progress": "33",
    "password_issue_date": MOMENT,
    "reason": "maintenance of the network",
    "Attempt.reason": None,
    "Operation.reason": None,
    "Outcome.reason": None,
    "Rollout.reason": None,
    "Why.reason": None,
    "remark": "Ticket 4711",
    "rollout": UID,
    "rule": "manual",
    "requested_by": "alice",
    "correlation_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "causation_id": "00f067aa0ba902b7a3ce929d0e0e4736",
    "event_id": "b7ad6b7169203331a3ce929d0e0e4736",
    "retry_of": None,
    "rollback_of": None,
    "failback_of": None,
    "failed_back_by": None,
    "fails_back_to": None,
    "rolled_back_by": None,
    "role": "admin",
    "Node.role": "master",
    "Learned.has_types": False,
    "Learned.aux_data": False,
    "Learned.commands": ["greet.hello"],
    "Learned.options": ["greet.depth"],
    "Learned.differences": ["memory: at most 1024 MB"],
    "Learned.in_words": ["It has no data types.", "It adds 1 command: greet.hello."],
    "LostOptions.options": ["greet.depth"],
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "semantic_version": "1.0.0",
    "server": "valkey",
    "server_version": "8.1.1",
    "software_version": "8.1.1",
    "state-machines": [],
    "phase": "paused",
    "status": "active",
    "stream": f"rollout:{UID}",
    "summary": "The rollout waits for a person at the gate after its canary.",
    "task_id": UID,
    "title": "install greet 1",
    "line": "Greet requires redis-server 7.2",
    "Failure.message": "The server refuses to load greet 1. See the server's log for the cause.",
    "Failure.reason": "load_failed",
    "Failure.text": "7 nodes: load_failed: Greet requires redis-server 7.2",
    "server_log": ["# <greet> Greet requires redis-server 7.2"],
    "LeftAlone.text": f"Left unchanged, because a newer rollout has changed them or is about to: node-1 by rollout {UID}.",
    "text": "Each wave ends at a gate, which a person opens.",
    "type": "rollout.started.v1",
    "types": ["rollout."],
    "uid": UID,
    "uploaded_by": "alice",
    "SignedTrust.node": "all",
    "SignedTrust.peer": "",
    "url": "https://hooks.example.com/modfleet",
    "username": "alice",
    "waves": ["25%", "50%"],
    "ServerState.restart": "shutdown",
    "Failover.way": "sentinel",
    "Failover.former": "10.0.0.5:6379",
    "Failover.new": "10.0.0.7:6379",
    "MovedMaster.way": "sentinel",
    "MovedMaster.former": "10.0.0.5:6379",
    "MovedMaster.new": "10.0.0.7:6379",
    "MovedMaster.text": "node-1: the master was 10.0.0.5:6379 and is 10.0.0.7:6379.",
    "restart_problem": "",
    "maintenance": "",
    "kept_file": "/var/lib/redis/dump.rdb.before-search-21",
    "tried": 20,
    "former_version": 20,
    "promoted": False,
    "irreversible": ["The first node tries if version 20 can read what version 21 writes."],
    "WayBack.message": "",
    "WayBack.result": "open",
    "OneWay.message": "It does not start: Module data type has an encoding that it does not know.",
    "OneWay.result": "closed",
    "withheld": False,
    "withhold": True,
    "keep_data": True,
    "save_problem": "",
    "full_syncs": 0,
    "ServerState.failover": "none",
    "PlannedRestart.failover": "sentinel",
    "window": "",
    "what": "waits_at_gate",
}

#: Fields of requests without an example: they exclude other fields, or need an earlier request.
NOT_SENT = frozenset(
    {"nodes", "pattern", "plan_hash", "selector", "start_at", "status", "supersede", "even_if_used", "adopt", "window"}
)

TEXTS = {
    "text/plain": '# HELP modfleet_nodes Nodes by phase\n# TYPE modfleet_nodes gauge\nmodfleet_nodes{phase="online"} 3.0\n',
    "text/csv": "record,node,phase\r\nnode,node-1,succeeded\r\n",
}


def add_examples(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add an example of each body to the document: of requests, and of answers that are not errors."""
    make = _Maker(result["components"]["schemas"])
    for operation in (each for path in result["paths"].values() for each in path.values()):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            content["example"] = make.example(content["schema"], sent=True)
        for response in operation["responses"].values():
            for media_type, content in response.get("content", {}).items():
                if "example" not in content:
                    content["example"] = TEXTS.get(media_type) or make.example(content["schema"])
    return result


class _Maker:
    def __init__(self, components: dict[str, Schema]) -> None:
        self._components = components

    def example(self, schema: Schema, name: str = "", component: str = "", *, sent: bool = False) -> Any:
        """Return a value that the schema allows. Raises: `KeyError` for a text without an example."""
        if "$ref" in schema:
            component = schema["$ref"].rpartition("/")[2]
            return self.example(self._components[component], name, component, sent=sent)
        if (among := schema.get("allOf") or schema.get("oneOf")) and "$ref" in among[0]:
            return self.example(among[0], name, component, sent=sent)
        if "enum" in schema:
            return VALUES[name] if VALUES.get(name) in schema["enum"] else schema["enum"][0]
        if "properties" in schema:
            return self._object(schema, component, sent=sent)
        if schema.get("type") == "array" and "$ref" in schema["items"]:
            return [self.example(schema["items"], sent=sent)]
        return self._plain(schema, name, component.removesuffix("Request"))

    def _object(self, schema: Schema, component: str, *, sent: bool) -> dict[str, Any]:
        required = schema.get("required", ())
        return {
            name: self.example(each, name, component, sent=sent)
            for name, each in schema["properties"].items()
            if name in required or not (sent and name in NOT_SENT)
        }

    def _plain(self, schema: Schema, name: str, component: str) -> Any:
        if f"{component}.{name}" in VALUES:
            return VALUES[f"{component}.{name}"]
        match schema:
            case {"default": default}:
                return default
            case {"type": "integer" | "number"}:
                return schema.get("minimum", 1)
            case {"type": "boolean"}:
                return True
            case {"format": "date-time"}:
                return MOMENT
            case {"format": "binary"}:
                return "greet.zip"
            case {"type": "object"} if name not in VALUES:
                return {}
            case {"type": "array"} if name not in VALUES:
                return [] if not schema.get("minItems") else [self.example(schema["items"], name, component)]
        return VALUES[name]
