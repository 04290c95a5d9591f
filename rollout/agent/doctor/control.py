"""Checks of the control plane: reachable with the given CA, over HTTPS, and with the same time."""

import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

from rollout.agent.control_plane.publisher import broker_time
from rollout.agent.doctor.broker import broker
from rollout.agent.doctor.certificates import DAY, in_days, seconds_left
from rollout.agent.doctor.host import Host, words_of
from rollout.agent.doctor.outcome import Outcome, failed, passed, unknown, warned
from rollout.agent.settings import is_plain_http
from rollout.messages import FindingStatus

#: The longest time for the control plane's answer, seconds.
ANSWER_SECONDS = 5.0
#: Differences between two clocks: from here on a warning, and a failure, seconds.
CLOCK_WARN, CLOCK_FAIL = 30.0, 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to `GET /livez`. `behind` is the control plane's time minus this host's, seconds; None without a date."""

    outcome: Outcome
    behind: float | None = None


def control_plane(host: Host) -> Outcome:
    return _asked(host).outcome


def control_https(host: Host) -> Outcome:
    url = host.settings.control_url
    if is_plain_http(url):
        return failed(
            f"MODFLEET_CONTROL_URL={url} is not encrypted, and {urlsplit(url).hostname} is another host.",
            "Use https://. For a private CA, set MODFLEET_CONTROL_CA.",
        )
    return passed("The connection is encrypted." if url.startswith("https") else "The control plane is on this host.")


def control_ca(host: Host) -> Outcome:
    file = host.settings.control_ca
    if file is None:
        return passed("MODFLEET_CONTROL_CA is not set: the public authorities are trusted.")
    fix = "Copy the certificate of the control plane's authority (PEM) to this file, readable for the agent's user."
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        left = seconds_left(file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        words = "no certificate in PEM" if isinstance(error, (ssl.SSLError, ValueError)) else words_of(error)
        return failed(f"MODFLEET_CONTROL_CA={file} cannot be read: {words}.", fix)
    if left < 0:
        return failed(f"The certificate in {file} expired {in_days(-left)} ago.", fix)
    if left < 30 * DAY:
        return warned(f"The certificate in {file} expires in {in_days(left)}.", fix)
    return passed(f"{file} has a valid certificate.")


def clock(host: Host) -> Outcome:
    """Compare this host's clock with those of the control plane and the broker."""
    moments = {"the control plane": _asked(host).behind}
    at_broker = broker_time(host.trust) if broker(host).status is FindingStatus.PASS else None
    moments["the broker"] = None if at_broker is None else at_broker - time.time()
    known = {name: behind for name, behind in moments.items() if behind is not None}
    if not known:
        return unknown("Neither the control plane nor the broker tells its time.")
    name, behind = max(known.items(), key=lambda item: abs(item[1]))
    if abs(behind) <= CLOCK_WARN:
        return passed(f"The clock differs by less than {CLOCK_WARN:.0f} s from {' and '.join(known)}.")
    message = f"The clock is {abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'} {name}."
    fix = "Synchronize the clock, for example with chrony or systemd-timesyncd."
    return failed(message, fix) if abs(behind) > CLOCK_FAIL else warned(message, fix)


def _asked(host: Host) -> Answer:
    if "_control" not in host.known:
        host.known["_control"] = _ask(host)
    answer: Answer = host.known["_control"]
    return answer


def _ask(host: Host) -> Answer:
    base = host.settings.control_url.rstrip("/")
    fix = "Start the control plane, open its port for this host, or correct MODFLEET_CONTROL_URL."
    try:
        request = Request(f"{base}/livez", headers={"User-Agent": "modfleet-agent"})  # noqa: S310 - http(s) only
        sent = time.time()
        with _opener(host).open(request, timeout=ANSWER_SECONDS) as response:
            middle, status = (sent + time.time()) / 2, response.status
            date, location = response.headers.get("Date"), response.headers.get("Location", "")
    except (OSError, HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Answer(
                outcome=failed(
                    f"The certificate of {base} is not trusted: {cause.verify_message}.",
                    "Set MODFLEET_CONTROL_CA to the file of the authority that signed it.",
                )
            )
        words = words_of(cause) if isinstance(cause, Exception) else str(cause)
        return Answer(outcome=failed(f"The control plane at {base} cannot be reached: {words}.", fix))
    if status == 200:
        outcome = passed(f"The control plane at {base} answers.")
    elif location.startswith("https://") and base.startswith("http://"):
        outcome = failed(f"The control plane at {base} requires HTTPS.", "Use https:// in MODFLEET_CONTROL_URL.")
    else:
        outcome = failed(
            f"{base}/livez answers {status} instead of 200.", "Correct MODFLEET_CONTROL_URL, or the proxy."
        )
    return Answer(outcome=outcome, behind=_behind(date, middle))


def _behind(date: str | None, now: float) -> float | None:
    """Return the difference to an HTTP date, which has no fraction of a second."""
    try:
        return parsedate_to_datetime(date or "").timestamp() + 0.5 - now
    except ValueError:
        return None


def _opener(host: Host) -> OpenerDirector:
    """Return an opener that trusts what the agent trusts, and follows no redirect."""
    context = ssl.create_default_context()
    if host.settings.control_ca:
        try:
            context.load_verify_locations(host.settings.control_ca)
        except OSError as error:
            raise ValueError(f"MODFLEET_CONTROL_CA cannot be read: {words_of(error)}") from error
    opener = OpenerDirector()
    for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler(context=context)):
        opener.add_handler(handler)
    return opener
