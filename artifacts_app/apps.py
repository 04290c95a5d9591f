from django.apps import AppConfig


class ArtifactsConfig(AppConfig):
    name = "artifacts_app"
    verbose_name = "Artifacts"

    def ready(self) -> None:
        from artifacts_app.projections import ArtifactProjection
        from artifacts_app.selectors import refuse_other_spelling
        from eventstore import register_projection
        from modules_app.vetoes import REGISTRATION

        REGISTRATION.register(refuse_other_spelling)
        register_projection(ArtifactProjection())
