"""Makes a replica the master without losing an acknowledged write, so that the former master can be restarted.

Three ways, as `MODFLEET_FAILOVER` says. What each leaves to do was seen on Valkey 9.1 and Redis 7.0:

- `sentinel`: Sentinel moves the other replicas, and lets them and the new master write their files. The former master gets
  REPLICAOF and CONFIG REWRITE from the agent: Redis's Sentinel leaves it writable for ten seconds.
- `command`: FAILOVER changes two roles, in memory only. The other replicas stay replicas of the former master, which is then one
  itself; the file of the new master says `replicaof`, and that of the former master does not. So the agent connects to all
  replicas, and calls REPLICAOF and CONFIG REWRITE there. If it may not, it does not fail over.
- `cluster`: the replicas follow by themselves, and each server writes `nodes.conf`. Nothing is left to do.
"""
