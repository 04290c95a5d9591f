"""Below `/admin/`. A rollout's page has the address that the admin site gives it, and takes its place."""

from django.urls import path

from console.rollouts import views

urlpatterns = [
    path("rollouts/start", views.start, name="start_rollout"),
    path("rollout/rollout/<str:uid>/change/", views.watch, name="rollout"),
    path("rollouts/<str:uid>/<str:name>", views.verb, name="rollout_verb"),
    path("rollouts/<str:uid>/nodes/<str:node>/cancel", views.cancel, name="rollout_cancel"),
    path("freeze", views.freeze, name="freeze"),
]
