"""A client of the API that asks again while the control plane is down: each request has one effect."""

import time
import uuid

import httpx

from tests.fleet import PASSWORD, PAUSE, Fleet
from tests.waiting import PATIENCE

#: The control plane, or its database, is away for a moment.
AWAY = {502, 503, 504, 507}


class Patient(httpx.HTTPTransport):
    """Repeats a request until it is answered, for up to `PATIENCE` seconds. A repeated one has the same Idempotency-Key."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            request.headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                response = super().handle_request(request)
            except httpx.TransportError:
                if time.monotonic() > end:
                    raise
            else:
                if response.status_code not in AWAY or time.monotonic() > end:
                    return response
                response.close()
            time.sleep(PAUSE)


def patient(fleet: Fleet) -> httpx.Client:
    return httpx.Client(base_url=fleet.url, auth=("admin", PASSWORD), timeout=PATIENCE, transport=Patient())
