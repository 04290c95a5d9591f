"""Artifacts and packages."""

from typing import Any

from rest_framework import serializers


class BuildSerializer(serializers.Serializer[Any]):
    platform = serializers.CharField(help_text="For example `linux/x86_64`, or `rhel9/x86_64` for one operating system")
    content_sha256 = serializers.CharField()
    package_sha256 = serializers.CharField()
    size = serializers.IntegerField(help_text="Size of the package in bytes")
    uploaded_at = serializers.DateTimeField()
    uploaded_by = serializers.CharField()


class ArtifactSerializer(serializers.Serializer[Any]):
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    builds = BuildSerializer(many=True)
    dependencies = serializers.ListField(child=serializers.CharField())


class LocalArtifactSerializer(serializers.Serializer[Any]):
    module_name = serializers.CharField()
    version = serializers.IntegerField()
    dependencies = serializers.ListField(child=serializers.CharField())


class PackageSerializer(serializers.Serializer[Any]):
    module = serializers.FileField(help_text="The package: a .zip file with one .so file and its module.json")
