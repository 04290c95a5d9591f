"""Scratch servers: the server's program without its data, to try a module or a start before the live server does."""
