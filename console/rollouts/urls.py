"""URLs below `/admin/`. A rollout's page replaces the one of the admin site, at the same URL."""

from django.urls import path

from console.rollouts import views

urlpatterns = [
    path("rollouts/start", views.start, name="start_rollout"),
    path("rollout/rollout/<str:uid>/change/", views.watch, name="rollout"),
    path("rollouts/<str:uid>/<str:name>", views.verb, name="rollout_verb"),
    path("rollouts/<str:uid>/nodes/<str:node>/cancel", views.cancel, name="rollout_cancel"),
    path("freeze", views.freeze, name="freeze"),
]
