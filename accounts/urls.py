from django.contrib import admin
from django.urls import path

from accounts.admin import change_own_password, log_in
from accounts.views import Authorize, ClusterView, RefreshToken, UserDetail, Users

urlpatterns = [
    path("v1/users", Users.as_view({"get": "list", "post": "create"})),
    path("v1/users/authorize", Authorize.as_view()),
    path("v1/users/refresh_jwt", RefreshToken.as_view()),
    path("v1/users/<int:uid>", UserDetail.as_view({"get": "retrieve", "put": "update", "delete": "destroy"})),
    path("v1/cluster", ClusterView.as_view()),
    path("admin/login/", log_in),
    path("admin/password_change/", admin.site.admin_view(change_own_password, cacheable=True)),
]
