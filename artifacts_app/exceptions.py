"""What can be wrong with an uploaded artifact."""


class InvalidArtifact(ValueError):
    """The package is missing something, or its bytes are bad."""

    #: Stable, for machines; answered with 400.
    code = "invalid_artifact"
