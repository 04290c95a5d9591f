from django.urls import path

from accounts.roles import Permission
from rollout.api.views.artifacts import LocalArtifactViewSet
from rollout.api.views.enrolment import EnrolmentViewSet
from rollout.api.views.events import EventViewSet
from rollout.api.views.freeze import FreezeViewSet
from rollout.api.views.ignored_replicas import IgnoredReplicaViewSet
from rollout.api.views.join_tokens import JoinTokenViewSet
from rollout.api.views.nodes import NodeViewSet
from rollout.api.views.report import RolloutReportView
from rollout.api.views.rollout_verbs import RolloutVerbViewSet
from rollout.api.views.rollouts import RolloutViewSet

urlpatterns = [
    # The vendor's
    path("v2/local/modules/user-defined/artifacts", LocalArtifactViewSet.as_view({"get": "list", "post": "create"})),
    path(
        "v2/local/modules/user-defined/artifacts/<str:module_name>/<str:version>",
        LocalArtifactViewSet.as_view({"delete": "destroy"}),
    ),
    # Ours
    path("v2/rollouts", RolloutViewSet.as_view({"get": "list", "post": "create"})),
    path(
        "v2/rollouts/plan",
        # Whoever may look at rollouts may also see what one would do.
        RolloutViewSet.as_view({"post": "plan"}, permissions={"POST": Permission.VIEW_CLUSTER_MODULES}),
    ),
    path("v2/rollouts/<str:uid>", RolloutViewSet.as_view({"get": "retrieve"})),
    path("v2/rollouts/<str:uid>/nodes", RolloutViewSet.as_view({"get": "nodes"})),
    path("v2/rollouts/<str:uid>/nodes/<str:name>", RolloutViewSet.as_view({"get": "node"})),
    path("v2/rollouts/<str:uid>/why", RolloutViewSet.as_view({"get": "why"})),
    path("v2/rollouts/<str:uid>/nodes/<str:name>/why", RolloutViewSet.as_view({"get": "node_why"})),
    path("v2/rollouts/<str:uid>/report", RolloutReportView.as_view()),
    path("v2/rollouts/<str:uid>/events", RolloutViewSet.as_view({"get": "events"})),
    path("v2/rollouts/<str:uid>/nodes/<str:name>/cancel", RolloutVerbViewSet.as_view({"post": "cancel"})),
    *(
        path(f"v2/rollouts/<str:uid>/{verb}", RolloutVerbViewSet.as_view({"post": verb}))
        for verb in ("pause", "resume", "promote", "abort", "retry", "rollback", "failback", "approve", "reject")
    ),
    path("v2/freeze", FreezeViewSet.as_view({"get": "retrieve", "post": "create", "delete": "destroy"})),
    path("v2/ignored-replicas", IgnoredReplicaViewSet.as_view({"get": "list", "post": "create"})),
    path("v2/ignored-replicas/<str:address>", IgnoredReplicaViewSet.as_view({"get": "retrieve", "delete": "destroy"})),
    path("v2/nodes", NodeViewSet.as_view({"get": "list"})),
    path("v2/nodes/<str:name>", NodeViewSet.as_view({"get": "retrieve", "patch": "partial_update"})),
    path("v2/nodes/<str:name>/operations", NodeViewSet.as_view({"get": "operations"})),
    path("v2/nodes/<str:name>/drain", NodeViewSet.as_view({"post": "drain"})),
    path("v2/nodes/<str:name>/activate", NodeViewSet.as_view({"post": "activate"})),
    path("v2/nodes/<str:name>/decommission", NodeViewSet.as_view({"post": "decommission"})),
    path("v2/nodes/<str:name>/forget", NodeViewSet.as_view({"post": "forget"})),
    path("v2/nodes/<str:name>/accept", NodeViewSet.as_view({"post": "accept"})),
    path("v2/nodes/<str:name>/revoke", NodeViewSet.as_view({"post": "revoke"})),
    path("v2/nodes/<str:name>/rekey", NodeViewSet.as_view({"post": "rekey"})),
    path("v2/join-tokens", JoinTokenViewSet.as_view({"get": "list", "post": "create"})),
    path("v2/join-tokens/<str:token>", JoinTokenViewSet.as_view({"get": "retrieve", "delete": "destroy"})),
    path("v2/enrolment", EnrolmentViewSet.as_view({"get": "retrieve", "post": "create"})),
    path("v2/enrolment/keys", EnrolmentViewSet.as_view({"post": "add_key"})),
    path("v2/enrolment/holds", EnrolmentViewSet.as_view({"post": "holds"})),
    path("v2/events", EventViewSet.as_view({"get": "list"})),
    path("v2/events/head", EventViewSet.as_view({"get": "head_of_the_log"})),
]
