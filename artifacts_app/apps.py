from django.apps import AppConfig


class ArtifactsConfig(AppConfig):
    name = "artifacts_app"
    verbose_name = "Artifacts"

    def ready(self) -> None:
        from artifacts_app.projections import ArtifactProjection
        from eventstore.projections import register

        register(ArtifactProjection())
