"""The judgement of a server's health, from samples that are taken while a module settles. Pure."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rollout.messages import Reason, ServerStatistics

#: Sections of INFO that a sample needs, and those that the statistics need.
SAMPLED = ("server", "replication", "persistence", "stats")
COUNTED = ("memory", "stats", "commandstats", "latencystats")
#: A link that is down for longer is a fault, seconds.
LINK_SECONDS = 5
#: Shares of failed calls are compared if each side has so many calls.
FEWEST_CALLS = 100
#: More than so many times the share of failed calls is a fault.
WORSE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The server at one moment. `link_is_up` is None for a master. `link_down_seconds`: for how long it is not.
    `error_replies`: errors that a replica answered to its master since its start, or since CONFIG RESETSTAT; None if the server
    does not say. `connections`: accepted in the same time. `writes_aof` is True too if the server does not say."""

    run_id: str
    is_loading: bool = False
    is_synchronizing: bool = False
    link_is_up: bool | None = None
    link_down_seconds: int = 0
    error_replies: int | None = None
    connections: int = 0
    writes_aof: bool = False

    def is_ready_as(self, before: "Sample") -> bool:
        """Return True if the server has its data. The link of a replica must be up if it was up `before`."""
        is_link_missing = self.link_is_up is False and before.link_is_up is not False
        return not (self.is_loading or self.is_synchronizing or is_link_missing)

    def is_reset_since(self, before: "Sample") -> bool:
        """Return True if CONFIG RESETSTAT was called since `before`, a sample of the same process."""
        return self.connections < before.connections or (self.error_replies or 0) < (before.error_replies or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a server is not healthy."""

    reason: Reason
    message: str


def fault(before: Sample, now: Sample) -> Fault | None:
    """Return what has become worse since `before`, a sample of the same process; None if nothing has.

    A replica that synchronizes is not ready, but it has no fault.
    """
    if before.error_replies is not None and (now.error_replies or 0) > before.error_replies:
        count = (now.error_replies or 0) - before.error_replies
        return Fault(
            reason=Reason.ERROR_REPLIES,
            message=f"The replica answered {count} of its master's commands with an error, so it lost these writes: "
            f"unexpected_error_replies rose from {before.error_replies} to {now.error_replies}.",
        )
    is_down = now.link_is_up is False and not now.is_synchronizing and now.link_down_seconds > LINK_SECONDS
    if is_down and before.link_is_up is not False:
        return Fault(
            reason=Reason.LINK_DOWN,
            message=f"The link to the master was up before, and is down for {now.link_down_seconds} s.",
        )
    return None


def more_failed_calls(before: ServerStatistics, after: ServerStatistics) -> str:
    """Return in words that more than twice the share of calls failed; empty if not, or if a side has too few calls.

    The statistics before are those since the module's last load: UNLOAD deletes them. That may be a longer time than the
    one after it, but shares do not depend on the number of calls.
    """
    if before.calls is None or after.calls is None or min(before.calls, after.calls) < FEWEST_CALLS:
        return ""
    was, now = (before.failed_calls or 0) / before.calls, (after.failed_calls or 0) / after.calls
    if now <= WORSE * was:
        return ""
    return (
        f"{_percent(now)} of {after.calls} calls of its commands failed while it settled; "
        f"before, it was {_percent(was)} of {before.calls}."
    )


def sample_from(info: Mapping[str, str]) -> Sample:
    """Return the sample in the sections `SAMPLED` of INFO."""
    is_replica = info.get("role") == "slave"
    return Sample(
        run_id=info.get("run_id", ""),
        is_loading="1" in {info.get("loading"), info.get("async_loading")},
        is_synchronizing=is_replica and info.get("master_sync_in_progress") == "1",
        link_is_up=info.get("master_link_status") == "up" if is_replica else None,
        link_down_seconds=_whole(info.get("master_link_down_since_seconds")) or 0 if is_replica else 0,
        error_replies=_whole(info.get("unexpected_error_replies")),
        connections=_whole(info.get("total_connections_received")) or 0,
        writes_aof=info.get("aof_enabled") != "0",
    )


def statistics_from(info: Mapping[str, str], commands: Collection[str]) -> ServerStatistics:
    """Return the statistics in the sections `COUNTED` of INFO. `commands` are those of the module."""
    names = {each.lower() for each in commands}
    calls = failed = 0
    percentiles = []
    for key, value in info.items():
        found = re.fullmatch(r"(cmdstat|latency_percentiles_usec)_([^|]+).*", key)
        if found is None or found[2].lower() not in names:
            continue
        fields = dict(pair.partition("=")[::2] for pair in value.split(","))
        if found[1] == "cmdstat":
            rejected = _whole(fields.get("rejected_calls")) or 0
            calls += (_whole(fields.get("calls")) or 0) + rejected
            failed += (_whole(fields.get("failed_calls")) or 0) + rejected
        elif re.fullmatch(r"\d+(\.\d+)?", fields.get("p99", "")):
            percentiles.append(float(fields["p99"]))
    return ServerStatistics(
        calls=calls if names else None,
        failed_calls=failed if names else None,
        p99_usec=max(percentiles, default=None),
        used_memory=_whole(info.get("used_memory")),
        evicted_keys=_whole(info.get("evicted_keys")),
        rejected_connections=_whole(info.get("rejected_connections")),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,18}", text, re.ASCII) else None
