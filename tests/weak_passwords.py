"""The settings with passwords that are quick to hash, for a server that is asked for thousands of accounts."""

from config.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
