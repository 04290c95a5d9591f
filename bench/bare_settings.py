"""What the polls are held against: one DRF view and our authentication, and the one middleware that gives an answer its length."""

from config.settings import *  # noqa: F403 - the same database, keys and apps

ROOT_URLCONF = "bench.bare"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
