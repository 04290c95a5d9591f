import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from api.request import Utf8Request
from config.environment import pooled

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

settings.DATABASES["default"].update(pooled(settings.DATABASES["default"], settings.ENVIRONMENT))
application = get_wsgi_application()
application.request_class = Utf8Request
