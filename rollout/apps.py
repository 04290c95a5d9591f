from django.apps import AppConfig


class RolloutConfig(AppConfig):
    name = "rollout"
    verbose_name = "Rollouts and nodes"

    def ready(self) -> None:
        from eventstore.projections import register
        from rollout.projections import NodeProjection, RolloutProjection

        register(RolloutProjection())
        register(NodeProjection())
