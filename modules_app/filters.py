import django_filters

from api.filters import TextFilter, WholeNumberFilter


class ModuleFilters(django_filters.FilterSet):
    module_name = TextFilter(field_name="module_name")
    version = WholeNumberFilter(field_name="version")
