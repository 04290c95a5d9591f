from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "operations"
    verbose_name = "Operations"

    def ready(self) -> None:
        from eventstore import observe_appends, register_projection
        from operations.heartbeat import note_look
        from operations.measures import count_append
        from operations.projections import OutcomeProjection
        from rollout.delivery.signals import relay_looked

        register_projection(OutcomeProjection())
        observe_appends(count_append)
        relay_looked.connect(note_look, dispatch_uid="operations.heartbeat")
