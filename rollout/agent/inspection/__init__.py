"""Reads facts about the server's process from its host, with a module for each kind of fact.

Nothing here changes the host or asks the server. `root` is the directory that holds the host's file system, `/` outside
of tests. All returned paths are as the host sees them, without `root`. An unknown fact is None.
"""
