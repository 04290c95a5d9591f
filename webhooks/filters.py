import django_filters

from api.filters import TruthFilter


class WebhookFilters(django_filters.FilterSet):
    """There are few webhooks: no filter needs an index."""

    enabled = TruthFilter(field_name="enabled")
