"""Module objects in the admin site."""

import json

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase

from accounts.admin import ActingAdmin
from accounts.roles import Permission
from modules_app import selectors, services
from modules_app.events import module_stream
from modules_app.models import Module
from ui.cells import Link, ago, events_link, exactly, list_url, module_url, preformatted


@admin.register(Module)
class ModuleAdmin(ActingAdmin):
    about = (
        "A module object describes one version of a module: its commands, arguments and requirements. It can be deleted "
        "when no node has the module loaded. The artifact, and the files on nodes, stay."
    )
    permission = Permission.MANAGE_CLUSTER_MODULES
    actions = ["delete_object"]
    list_display = ["module_name", "version", "semantic_version", "uid", "registered", "registered_by"]
    search_fields = ["module_name", "uid"]
    search_help_text = "Name or UID"
    ordering = ["module_name", "version"]
    fields = ["module_name", "version", "uid", "registered_exactly", "registered_by", "pretty_document"]

    def links(self, row: Module) -> list[Link]:
        of_module = {"module_name": row.module_name, "version": row.version}
        return [
            Link(url=module_url(row.module_name, row.version), text="All versions"),
            Link(url=list_url("artifacts_app_build", of_module), text="Builds"),
            Link(url=list_url("rollout_nodemodule", of_module), text="On nodes"),
            Link(url=list_url("rollout_rollout", of_module), text="Rollouts"),
            events_link(module_stream(row.uid)),
        ]

    @admin.action(description="Delete module object if unused", permissions=["act"])
    def delete_object(self, request: HttpRequest, rows: QuerySet[Module]) -> HttpResponseBase | None:
        return self.act(request, rows, _delete, ask="Delete these module objects?")

    @admin.display(description="semantic version")
    def semantic_version(self, row: Module) -> str:
        return str(selectors.document_of(row).get("semantic_version", ""))

    @admin.display(description="registered", ordering="registered_at")
    def registered(self, row: Module) -> str:
        return ago(row.registered_at)

    @admin.display(description="registered")
    def registered_exactly(self, row: Module) -> str:
        return exactly(row.registered_at)

    @admin.display(description="module object")
    def pretty_document(self, row: Module) -> str:
        return preformatted(json.dumps(selectors.document_of(row), indent=2, ensure_ascii=False))


def _delete(row: Module) -> str:
    services.delete_module(row.uid)
    return f"Deleted the module object {row}."
