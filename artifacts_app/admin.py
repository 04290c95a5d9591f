"""Builds in the admin site."""

import json

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.template.defaultfilters import filesizeformat
from django.urls import reverse

from accounts.admin import ActingAdmin
from accounts.roles import Permission
from artifacts_app import selectors, services
from artifacts_app.events import artifact_stream
from artifacts_app.models import Build
from ui.cells import Link, ago, digest, events_link, exactly, list_url, module_url, preformatted
from ui.pages import Table


@admin.register(Build)
class BuildAdmin(ActingAdmin):
    about = (
        "Uploaded packages: one build for each platform of a module version. A build never changes. An artifact is "
        "deleted with all its builds, and only if no node has it and no rollout is about to install it."
    )
    permission = Permission.MANAGE_CLUSTER_MODULES
    actions = ["delete_artifact"]
    list_display = ["module_name", "version", "platform", "package_size", "content", "uploaded", "uploaded_by"]
    list_filter = ["platform"]
    search_fields = ["module_name", "content_sha256", "package_sha256"]
    search_help_text = "Name, or SHA-256 of the package or its content"
    ordering = ["module_name", "version", "platform"]
    fields = ["module_name", "version", "platform", "package_size", "content_sha256", "package_sha256"]
    fields += ["storage_key", "module_file", "needs", "uploaded_exactly", "uploaded_by", "pretty_document"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Build]:
        rows: QuerySet[Build] = super().get_queryset(request)
        return rows.defer("members", "document")

    def list_links(self, request: HttpRequest) -> list[Link]:
        upload = Link(url=reverse("admin:upload"), text="Upload a package")
        return [upload] if self.has_act_permission(request) else []

    def links(self, row: Build) -> list[Link]:
        of_module = {"module_name": row.module_name, "version": row.version}
        return [
            Link(url=module_url(row.module_name, row.version), text="Module"),
            Link(url=list_url("rollout_nodemodule", of_module), text="On nodes"),
            Link(url=list_url("rollout_rollout", of_module), text="Rollouts"),
            events_link(artifact_stream(row.module_name, row.version)),
        ]

    def tables(self, row: Build) -> list[Table]:
        members = selectors.members_of(row)
        return [
            Table(
                title="Files",
                columns=["Path", "Size", "SHA-256"],
                rows=[(each.path, filesizeformat(each.size), digest(each.sha256)) for each in members],
                when_empty="The package is empty.",
            )
        ]

    @admin.action(description="Delete artifact if unused", permissions=["act"])
    def delete_artifact(self, request: HttpRequest, rows: QuerySet[Build]) -> HttpResponseBase | None:
        one_of_each = {(row.module_name, row.version): row for row in rows}.values()
        ask = "Delete these artifacts, with their builds for all platforms?"
        return self.act(request, one_of_each, _delete, ask=ask)

    @admin.display(description="size", ordering="size")
    def package_size(self, row: Build) -> str:
        return filesizeformat(row.size)

    @admin.display(description="content SHA-256")
    def content(self, row: Build) -> str:
        return digest(row.content_sha256)

    @admin.display(description="depends on")
    def needs(self, row: Build) -> str:
        return ", ".join(json.loads(row.dependencies)) or "nothing"

    @admin.display(description="uploaded", ordering="uploaded_at")
    def uploaded(self, row: Build) -> str:
        return ago(row.uploaded_at)

    @admin.display(description="uploaded")
    def uploaded_exactly(self, row: Build) -> str:
        return exactly(row.uploaded_at)

    @admin.display(description="module.json")
    def pretty_document(self, row: Build) -> str:
        return preformatted(json.dumps(selectors.metadata_of(row), indent=2, ensure_ascii=False))


def _delete(row: Build) -> str:
    services.delete_artifact(row.module_name, row.version)
    return f"Deleted the artifact {row.module_name} {row.version}."
