"""Who may use a download link: only the node that it is for, as long as the node's identity is valid."""

from hashlib import sha256

import msgspec

from artifacts_app.downloads import InvalidLinkError
from eventstore import database_now
from rollout.domain.node.state import Identity
from rollout.queries.trust import trust_in
from rollout.signing import Purpose, UntrustedError, envelope_from, from_text, read

#: A proof may be so old, or so far ahead, by the two clocks, seconds.
LARGEST_SKEW = 300.0


def refuse_other_nodes(node: str, link: str, proof: str) -> None:
    """Refuse a link that is not used by its node. A node from before messages were signed has no proof.

    Raises: `InvalidLinkError`.
    """
    trust = trust_in([node])[node]
    if trust.has_left:
        raise InvalidLinkError(f"{node} was decommissioned.")
    if trust.identity == Identity.UNSIGNED:
        return
    try:
        envelope = envelope_from(msgspec.json.decode(from_text(proof)))
        trust.verify(envelope, Purpose.FETCH)
        said = read(envelope)
        is_of_link = said["link_sha256"] == sha256(link.encode()).hexdigest()
        is_new = abs(said["sent_at"] - database_now().timestamp()) <= LARGEST_SKEW
    except (
        UntrustedError,
        msgspec.MsgspecError,
        RecursionError,
        ArithmeticError,
        ValueError,
        KeyError,
        TypeError,
    ) as error:
        raise InvalidLinkError(f"Only the agent of {node} may use this link, while its identity is valid.") from error
    if not is_of_link:
        raise InvalidLinkError("The proof is for another link.")
    if not is_new:
        raise InvalidLinkError(f"The clocks of {node} and the control plane differ by more than {LARGEST_SKEW:.0f} s.")
