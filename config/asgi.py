"""What the server runs: the WSGI application in threads of our own, and the probes on a listener of theirs."""

from django.conf import settings

from api.front import Front
from config.wsgi import application as wsgi_application
from operations.listener import Service

_SECONDS = settings.ENVIRONMENT.slow_client_seconds

application = Service(
    Front(wsgi_application, threads=settings.ENVIRONMENT.threads, send_seconds=_SECONDS),
    Front(wsgi_application, threads=4, send_seconds=_SECONDS, name="probe"),
    settings.ENVIRONMENT.probe_address,
)
