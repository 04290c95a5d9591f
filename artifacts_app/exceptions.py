"""The error of an uploaded package."""


class InvalidArtifact(ValueError):
    """The package is incomplete or damaged."""

    #: Stable, for machines. The status is 400.
    code = "invalid_artifact"
