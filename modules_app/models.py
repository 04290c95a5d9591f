"""Read model of the module objects, written only by `projections.ModuleProjection`."""

from typing import ClassVar

from django.db import models


class Module(models.Model):
    uid = models.CharField(primary_key=True, max_length=32)
    module_name = models.CharField(max_length=128)
    version = models.BigIntegerField()
    #: The whole object as JSON text, as the API returns it.
    document = models.TextField()
    registered_at = models.DateTimeField()
    registered_by = models.CharField(max_length=150)

    class Meta:
        ordering: ClassVar = ["module_name", "version"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["module_name", "version"], name="one_object")]

    def __str__(self) -> str:
        return f"{self.module_name} {self.version}"
