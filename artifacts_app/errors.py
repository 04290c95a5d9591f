"""Errors of artifacts. The statuses are those of our own routes. Knows no Django."""

from api.errors import ApiError


class ArtifactError(ApiError):
    """The artifact was refused."""

    status = 400
    code = "invalid_artifact"


class NoModuleError(ArtifactError):
    """Send the package as multipart/form-data, in a field named "module"."""

    code = "no_module"


class UnreadableArtifactError(ArtifactError):
    """The package cannot be read."""


class InvalidArtifactMetadataError(ArtifactError):
    """The package's module.json lacks a required field or has an invalid value."""

    status = 406
    code = "invalid_module"


class ArtifactTooLargeError(ArtifactError):
    """The package is larger than this cluster accepts."""

    status = 413
    code = "artifact_too_large"


class ArtifactExistsError(ArtifactError):
    """This version has another build for this platform, and a build never changes. Raise the version."""

    status = 409
    code = "artifact_exists"


class ArtifactNotFoundError(ArtifactError):
    """There is no artifact of this module and version."""

    status = 404
    code = "artifact_not_found"


class ArtifactInUseError(ArtifactError):
    """Nodes have this artifact, or a rollout is about to install it."""

    status = 409
    code = "artifact_in_use"
