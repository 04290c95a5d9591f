"""`modfleet agent install` and `uninstall`: enrol a node from its host, and create all that its agent needs there.

The base installation has all that this package imports.
"""
