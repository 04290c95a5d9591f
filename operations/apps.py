from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "operations"
    verbose_name = "Operations"

    def ready(self) -> None:
        from eventstore import observe_appends, register_projection
        from operations.measures import count_append
        from operations.projections import OutcomeProjection
        from operations.relay_heartbeat import record_relay_heartbeat
        from rollout.delivery.signals import relay_caught_up

        register_projection(OutcomeProjection())
        observe_appends(count_append)
        relay_caught_up.connect(record_relay_heartbeat, dispatch_uid="operations.relay_heartbeat")
