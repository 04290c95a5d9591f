"""The control plane's Celery app: publishes commands, and runs the control worker (`celery -A config worker`)."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from config.environment import broker_url, read_environment  # after the name of the settings
from rollout.transport import register

register()
app = Celery("modfleet")
app.conf.update(
    broker_url=broker_url(read_environment()),
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "visibility_timeout": 600,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # Its callers try again by themselves; kombu would sleep 2 + 4 s in each of them.
        "max_retries": 1,
        "interval_start": 0,
    },
    # A request or a sweep must not hang on a broker that is away: the outbox keeps what was not published.
    task_publish_retry=False,
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_acks_late=True,
    task_default_queue="control.tasks",
    worker_prefetch_multiplier=1,
    worker_pool="solo",
    worker_consumer="rollout.transport:TaskConsumer",
    worker_hijack_root_logger=False,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
)
app.autodiscover_tasks(["rollout"])
# By name: they need the apps, which are not ready when this module is read.
app.steps["consumer"].add("rollout.delivery.consumer:ReportConsumers")
app.steps["worker"].add("webhooks.worker:WebhookDeliverer")
