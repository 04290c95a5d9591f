from django.apps import AppConfig
from django.db.models.signals import post_migrate


class EventstoreConfig(AppConfig):
    name = "eventstore"
    verbose_name = "Event log"

    def ready(self) -> None:
        from eventstore.triggers import create_triggers
        from eventstore.upgrades import report_stale_projections

        post_migrate.connect(create_triggers, sender=self, dispatch_uid="eventstore.triggers")
        post_migrate.connect(report_stale_projections, sender=self, dispatch_uid="eventstore.upgrades")
