"""POST /v1/users/refresh_jwt"""

import jwt
import pytest

from accounts.tokens import issue_token
from tests.plugins.cast import basic

URL = "/v1/users/refresh_jwt"


@pytest.mark.parametrize("scheme", ["JWT", "Bearer", "bearer"])
def test_it_works(anyone, bob, scheme):
    response = anyone.post(
        URL, {"ttl": 86_400}, format="json", headers={"authorization": f"{scheme} {issue_token(bob)}"}
    )
    assert response.status_code == 200
    claims = jwt.decode(response.json()["access_token"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 86_400


def test_no_token(anyone, db):
    response = anyone.post(URL)
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == 'Bearer realm="modfleet"'


def test_basic_credentials_are_no_token(anyone, bob):
    assert anyone.post(URL, headers={"authorization": basic("bob")}).status_code == 401


def test_an_expired_token(anyone, bob):
    header = {"authorization": f"JWT {issue_token(bob, ttl=-1)}"}
    assert anyone.post(URL, headers=header).status_code == 401


def test_ttl_out_of_range(anyone, bob):
    header = {"authorization": f"JWT {issue_token(bob)}"}
    assert anyone.post(URL, {"ttl": 0}, format="json", headers=header).status_code == 400
