"""The setting `UNFOLD`: names, logo and colours. The sidebar and the pages are in `site`, `navigation` and `urls`."""

from typing import Any

from django.templatetags.static import static

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Modfleet",
    "SITE_HEADER": "Modfleet",
    "SITE_URL": None,
    "SITE_ICON": lambda _: static("console/logo.svg"),
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda _: static("console/logo.svg")}],
    "STYLES": [lambda _: static("console/console.css")],
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": "6px",
    "COLORS": {
        "primary": {
            "50": "#eefbf9",
            "100": "#d5f4f0",
            "200": "#aee8e1",
            "300": "#79d5cc",
            "400": "#43bab1",
            "500": "#269e97",
            "600": "#0b7a75",
            "700": "#0a625f",
            "800": "#0d4f4d",
            "900": "#104140",
            "950": "#032726",
        }
    },
}
