"""Errors of requests about artifacts."""

from api.errors import ApiError, Kind


class ArtifactError(ApiError):
    """The artifact was refused."""

    kind = Kind.INVALID
    code = "invalid_artifact"


class NoModuleError(ArtifactError):
    """Send the package as multipart/form-data, in a field named "module"."""

    code = "no_module"


class UnreadableArtifactError(ArtifactError):
    """The package cannot be read."""


class InvalidArtifactMetadataError(ArtifactError):
    """The package's module.json lacks a required field or has an invalid value."""

    kind = Kind.NOT_ACCEPTABLE
    code = "invalid_module"


class ArtifactTooLargeError(ArtifactError):
    """The package is larger than this cluster accepts."""

    kind = Kind.TOO_LARGE
    code = "artifact_too_large"


class ArtifactExistsError(ArtifactError):
    """This version has another build for this platform, and a build never changes. Raise the version."""

    kind = Kind.CONFLICT
    code = "artifact_exists"


class ArtifactNotFoundError(ArtifactError):
    """There is no artifact of this module and version."""

    kind = Kind.NOT_FOUND
    code = "artifact_not_found"


class ArtifactInUseError(ArtifactError):
    """Nodes have this artifact, or a rollout is about to install it."""

    kind = Kind.CONFLICT
    code = "artifact_in_use"
