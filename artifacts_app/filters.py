import django_filters

from api.filters import TextFilter, WholeNumberFilter


class ArtifactFilters(django_filters.FilterSet):
    module_name = TextFilter(field_name="module_name")
    version = WholeNumberFilter(field_name="version")
    platform = TextFilter(field_name="platform", help_text="With a build for it, such as `linux/x86_64`")
