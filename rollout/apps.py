from django.apps import AppConfig


class RolloutConfig(AppConfig):
    name = "rollout"
    verbose_name = "Rollouts and nodes"

    def ready(self) -> None:
        import rollout.former_actors  # noqa: F401  # registers itself
        from eventstore.projections import register
        from rollout.projections.fleet import FleetProjection
        from rollout.projections.nodes import NodeProjection
        from rollout.projections.rollouts import RolloutProjection

        register(RolloutProjection())
        register(NodeProjection())
        register(FleetProjection())
