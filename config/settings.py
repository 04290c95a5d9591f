"""Wiring only: every value that differs between installations comes from `config.environment`."""

from typing import Any

import django_stubs_ext

from config.environment import (
    database,
    make_data_directory,
    package_storage,
    private_files,
    read_environment,
    secret_key,
)
from config.private import keep_files_private, tighten
from console import theme

django_stubs_ext.monkeypatch()

keep_files_private()
ENVIRONMENT = read_environment()
make_data_directory(ENVIRONMENT)

SECRET_KEY = secret_key(ENVIRONMENT)
SECRET_KEY_FALLBACKS = ENVIRONMENT.secret_key_fallbacks.split()
DEBUG = ENVIRONMENT.debug
ALLOWED_HOSTS = [each.strip() for each in ENVIRONMENT.allowed_hosts.split(",")]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
APPEND_SLASH = False
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"

INSTALLED_APPS = [
    "console",
    "unfold.apps.BasicAppConfig",
    "console.apps.ConsoleAdminConfig",
    "django.contrib.humanize",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "config",
    "eventstore",
    "api",
    "accounts",
    "modules_app",
    "artifacts_app",
    "rollout",
    "webhooks",
    "operations",
]
MIDDLEWARE = [
    "operations.middleware.AccessMiddleware",
    "operations.middleware.ProbeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "api.middleware.ApiMiddleware",
    "console.middleware.PolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "accounts.middleware.SessionActorMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES: dict[str, Any] = {"default": database(ENVIRONMENT)}
tighten(ENVIRONMENT.data_path, private_files(ENVIRONMENT))
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
#: Names in the database and in backups. A change would shut out running processes and older backups.
EVENTSTORE = {"CHANNEL": "modfleet_log", "APPEND_LOCK": 0x6D6F6466, "BACKUP_FORMAT": "modfleet-log"}
AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 8}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

STORAGES = {
    "default": package_storage(ENVIRONMENT),
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True
FILE_UPLOAD_PERMISSIONS = 0o600
# A package is bounded by its own limit, while it is streamed; everything else is small.
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_000_000

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = ENVIRONMENT.https
SECURE_HSTS_SECONDS = 31_536_000 if ENVIRONMENT.https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = ENVIRONMENT.https
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if ENVIRONMENT.https else None
UNFOLD = theme.UNFOLD
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.authentication.BasicAuthentication",
        "accounts.authentication.TokenAuthentication",
        "accounts.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.permissions.RequiresPermission"],
    "DEFAULT_THROTTLE_CLASSES": ["accounts.throttles.RequestThrottle"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["api.parsers.StrictJSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "api.negotiation.AlwaysJson",
    "DEFAULT_METADATA_CLASS": "api.negotiation.NoMetadata",
    "DEFAULT_SCHEMA_CLASS": "accounts.schema.OperationSchema",
    "EXCEPTION_HANDLER": "api.handlers.handle_exception",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Modfleet",
    "DESCRIPTION": "Rolls user-defined Redis and Valkey modules out to every node of a fleet.",
    "VERSION": "0.1.0",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "accounts.schema.add_error",
        "api.examples.add_examples",
    ],
    "COMPONENT_SPLIT_REQUEST": True,  # what is sent may not be blank, what is answered may
    "COMPONENT_SPLIT_PATCH": False,  # each says itself what may be left out
    "ENFORCE_NON_BLANK_FIELDS": True,
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    # Those of fields that have other names too, or whose name has other choices elsewhere.
    "ENUM_NAME_OVERRIDES": {
        "JoinTokenStateEnum": ["open", "used", "expired", "revoked"],
        "NodePhaseEnum": ["pending", "online", "degraded", "offline", "draining", "decommissioned"],
        "PresenceEnum": ["load", "files", "absent"],
        "ActivationEnum": ["files", "load"],
        "ActivationOfRolloutEnum": "rollout.api.serializers.strategy.ACTIVATIONS",
        "OperationPhaseEnum": "rollout.api.serializers.rollouts.PHASES",
        "ActionEnum": "rollout.api.serializers.rollouts.ACTIONS",
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request": {"()": "api.logs.RequestIdFilter"}},
    "formatters": {"chosen": {"()": "rollout.logs.formatter", "log_format": ENVIRONMENT.log_format}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "chosen", "filters": ["request"]}},
    "root": {"handlers": ["stderr"], "level": ENVIRONMENT.log_level},
    "loggers": {
        # Anybody can cause them, and each would come with a traceback: the answer says enough.
        "django.security": {"level": "CRITICAL"},
        # It names each address that it asks, and that of a webhook may be a credential.
        "httpx": {"level": "WARNING"},
    },
}
