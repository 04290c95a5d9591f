"""Read model of the builds, written only by `projections.ArtifactProjection`."""

from typing import ClassVar

from django.db import models


class Build(models.Model):
    """One build: what a node of `platform` gets for a module name and version."""

    #: `<module_name>:<version>:<platform>`
    key = models.CharField(primary_key=True, max_length=200)
    module_name = models.CharField(max_length=128)
    version = models.BigIntegerField()
    platform = models.CharField(max_length=64)
    content_sha256 = models.CharField(max_length=64)
    package_sha256 = models.CharField(max_length=64)
    #: Bytes of the package.
    size = models.BigIntegerField()
    #: The builds for the operating systems of one package share its bytes.
    storage_key = models.CharField(max_length=200)
    module_file = models.CharField(max_length=255)
    #: JSON arrays and objects as text, as in the event.
    members = models.TextField()
    #: Empty if an older version has inspected the package.
    entry_points = models.TextField(default="[]", db_default="[]")
    dependencies = models.TextField()
    document = models.TextField()
    uploaded_at = models.DateTimeField()
    uploaded_by = models.CharField(max_length=150)

    class Meta:
        ordering: ClassVar = ["module_name", "version", "platform"]
        indexes: ClassVar = [models.Index(fields=["module_name", "version"], name="builds_by_version")]

    def __str__(self) -> str:
        return f"{self.module_name} {self.version} {self.platform}"
