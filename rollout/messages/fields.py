"""The types of the messages' fields, with their limits."""

from typing import Annotated

from msgspec import Meta

#: Fields of messages end in columns and stream names, so they have limits.
Name = Annotated[str, Meta(pattern=r"\A(?!\.{1,2}\Z)[A-Za-z0-9_.-]{1,128}\Z")]
#: Text that a database can store: no NUL, and no half of a surrogate pair.
STORABLE = r"\A[^\x00\ud800-\udfff]*\Z"
Digest = Annotated[str, Meta(pattern=STORABLE, max_length=64)]
Word = Annotated[str, Meta(pattern=STORABLE, max_length=32)]
Host = Annotated[str, Meta(pattern=STORABLE, max_length=255)]
Label = Annotated[str, Meta(pattern=STORABLE, max_length=255)]
#: The most lines of the server's log in a report, and the most characters of each.
MOST_LOG_LINES = 20
LONGEST_LOG_LINE = 300
LogLine = Annotated[str, Meta(pattern=STORABLE, max_length=LONGEST_LOG_LINE)]
#: `host:port`.
Address = Annotated[str, Meta(pattern=STORABLE, max_length=264)]
#: A path, or another short text that a server reports.
Fact = Annotated[str, Meta(pattern=STORABLE, max_length=256)]
Sentences = Annotated[str, Meta(pattern=STORABLE, max_length=1000)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 2)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
#: Unix time in seconds, by the sender's clock.
Moment = Annotated[float, Meta(ge=0, le=1e11)]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Microseconds = Annotated[float, Meta(ge=0, le=1e12)]
