from django.apps import AppConfig
from django.contrib.admin import apps


class ConsoleConfig(AppConfig):
    name = "console"
    default = True


class ConsoleAdminConfig(apps.AdminConfig):
    """The admin app, with `ConsoleSite` as its site."""

    default = False
    default_site = "console.site.ConsoleSite"
