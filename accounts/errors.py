"""Errors of requests about users and settings. The codes are the vendor's where the vendor has one."""

from api.errors import ConflictError, InvalidRequestError, NotAcceptableError, NotFoundError, PermissionDeniedError


class UserNotFoundError(NotFoundError):
    """There is no such user."""

    code = "user_not_found"


class NameTakenError(ConflictError):
    """The name is already taken."""

    code = "name_already_exists"


class NameUsedBeforeError(ConflictError):
    """Another user had this name before, and in the log it means that user. Choose another name."""

    code = "name_used_before"


class EmailTakenError(ConflictError):
    """The email address is already taken."""

    code = "email_already_exists"


class WeakPasswordError(InvalidRequestError):
    """The password is not complex enough."""

    code = "password_not_complex"


class SamePasswordError(InvalidRequestError):
    """The new password is the current one."""

    code = "new_password_same_as_current"


class LastAdminError(NotAcceptableError):
    """At least one user who can sign in must have the role admin."""

    code = "change_last_admin_role_not_allowed"


class AdminOnlyError(PermissionDeniedError):
    """Only an admin may create, change or delete an admin."""


class ModulesUploadDisabledError(PermissionDeniedError):
    """Uploads are turned off. To turn them on: PUT /v1/cluster {"allow_modules_upload": true}."""

    code = "modules_upload_disabled"
