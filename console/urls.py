"""URLs of the console's own pages, below `/admin/` and named `admin:<name>`. Each app's `admin.py` has its lists."""

from django.urls import path

from console.rollouts.urls import urlpatterns as rollout_pages
from console.views import add_node, home, ignore_replica, module, node, upload

urlpatterns = [
    path("live", home.live, name="live"),
    path("modules/", module.modules, name="modules"),
    path("modules/<str:name>", module.module, name="module"),
    path("nodes/add", add_node.add_node, name="add_node"),
    path("nodes/ignore-replica", ignore_replica.ignore, name="ignore_replica"),
    path("nodes/<str:name>/labels", node.labels, name="node_labels"),
    path("nodes/<str:name>/address", node.address, name="node_address"),
    path("upload", upload.upload, name="upload"),
    *rollout_pages,
]
