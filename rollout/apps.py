from django.apps import AppConfig


class RolloutConfig(AppConfig):
    name = "rollout"
    verbose_name = "Rollouts and nodes"

    def ready(self) -> None:
        import artifacts_app.vetoes
        import modules_app.vetoes
        import rollout.domain.actor_upcaster  # noqa: F401  # registers itself
        from eventstore import register_projection
        from rollout.projections.fleet import FleetProjection
        from rollout.projections.ignored_replicas import IgnoredReplicaProjection
        from rollout.projections.join_tokens import JoinTokenProjection
        from rollout.projections.nodes import NodeProjection
        from rollout.projections.rollouts import RolloutProjection
        from rollout.queries.downloads import refuse_other_nodes
        from rollout.queries.modules import refuse_if_loaded, refuse_if_used

        artifacts_app.vetoes.DELETION.register(refuse_if_used)
        artifacts_app.vetoes.FETCH.append(refuse_other_nodes)
        modules_app.vetoes.DELETION.register(refuse_if_loaded)
        register_projection(RolloutProjection())
        register_projection(NodeProjection())
        register_projection(FleetProjection())
        register_projection(IgnoredReplicaProjection())
        register_projection(JoinTokenProjection())
