from django.apps import AppConfig


class ModulesConfig(AppConfig):
    name = "modules_app"
    verbose_name = "Modules"

    def ready(self) -> None:
        from eventstore import register_projection
        from modules_app.projections import ModuleProjection

        register_projection(ModuleProjection())
