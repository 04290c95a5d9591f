from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = "Users"

    def ready(self) -> None:
        from accounts import schema  # noqa: F401  # describes credentials in the schema
        from accounts.projections import UserNameProjection
        from eventstore import register_projection

        register_projection(UserNameProjection())
