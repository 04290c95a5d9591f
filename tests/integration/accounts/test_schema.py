"""The OpenAPI document of these endpoints."""

from drf_spectacular.drainage import GENERATOR_STATS, reset_generator_stats
from drf_spectacular.generators import SchemaGenerator


def test_it_is_made_without_a_warning():
    reset_generator_stats()
    schema = SchemaGenerator(patterns=None, urlconf="accounts.urls").get_schema(request=None, public=True)
    assert not GENERATOR_STATS
    assert {"/v1/users", "/v1/users/{uid}", "/v1/cluster", "/v1/users/authorize"} <= schema["paths"].keys()
    assert schema["components"]["securitySchemes"].keys() == {"basic", "token", "vendorToken", "session"}
