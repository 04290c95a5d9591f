"""Proof from the clients' side: programs that write down what clients see, and one that judges it.

A *history* is what one client process has seen, one line for each call. The *changes* are what the operator has asked for, and
how it ended. A *dump* is what one server has at the end. The checker reads only these three. It knows nothing of Modfleet.
"""
