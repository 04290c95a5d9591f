"""The request bodies of artifacts, and their answers in the OpenAPI document."""

from typing import Any

from rest_framework import serializers


class BuildSerializer(serializers.Serializer[Any]):
    platform = serializers.CharField(help_text="Such as `linux/x86_64`; `rhel9/x86_64` for one operating system")
    content_sha256 = serializers.CharField()
    package_sha256 = serializers.CharField()
    size = serializers.IntegerField(help_text="Bytes of the package")
    uploaded_at = serializers.DateTimeField()
    uploaded_by = serializers.CharField()


class ArtifactSerializer(serializers.Serializer[Any]):
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    builds = BuildSerializer(many=True)
    dependencies = serializers.ListField(child=serializers.CharField())


class PackageSerializer(serializers.Serializer[Any]):
    module = serializers.FileField(help_text="The package: a .zip of one .so and its module.json")


#: The body of a request that uploads a package.
UPLOAD = {"multipart/form-data": PackageSerializer}
