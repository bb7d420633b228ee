"""Pictures in the body of a request: one as it is, or several in a form (RFC 7578)."""

import re

from starlette.exceptions import HTTPException

from pipeline.errors import printable

UNNAMED = "picture"  # what the answer calls a body that is a picture
LONGEST_NAME = 100  # characters
LONGEST_HEAD = 4096  # bytes, of a part of a form
BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.I)
FILE_NAME = re.compile(rb';\s*filename=(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s;"]+))', re.I)
HOW = "Send a picture as the body, or pictures as files of a form: curl -F file=@photo.jpg ADDRESS/predict"


def pictures_of(body: bytes, content_type: str, most: int) -> list[tuple[str, bytes]]:
    """(name, content) of each picture; of a form with at most `most` parts, those that are files.

    A name only goes back into the answer. HTTPException 400 if it is no form that can be read.
    """
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        return [(UNNAMED, body)]
    found = BOUNDARY.search(content_type)
    if found is None:
        raise HTTPException(400, f"The form's Content-Type has no boundary. {HOW}")
    separator = b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace")
    _, *parts = (b"\r\n" + body).split(separator, most + 2)
    if len(parts) > most + 1:
        raise HTTPException(413, f"The form has more than {most} parts. Send several forms.")
    if not parts or not parts[-1].startswith(b"--"):
        raise HTTPException(400, f"The form breaks off before its end. {HOW}")
    return [picture for part in parts[:-1] if (picture := _picture(part))] or _none()


def _picture(part: bytes) -> tuple[str, bytes] | None:
    """(name, content) of a part that is a file; None of other fields, and of files that were not chosen."""
    end = part.find(b"\r\n\r\n", 0, LONGEST_HEAD)
    if not part.startswith(b"\r\n") or end < 0:
        raise HTTPException(400, f"A part of the form has no head, or too large a one. {HOW}")
    found = FILE_NAME.search(part, 0, end)
    content = part[end + 4 :]
    if found is None or not (found[1] or found[2] or content):
        return None
    name = (found[1] or found[2] or b"").decode("utf-8", "replace")
    return printable(name)[:LONGEST_NAME] or UNNAMED, content


def _none() -> list[tuple[str, bytes]]:
    raise HTTPException(400, f"The form holds no file. {HOW}")
