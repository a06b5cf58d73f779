"""Lists a mailbox as mail programs do, with imaplib, and prints a digest of each answer.

Input (JSON): port, ca, user, password, mailbox, commands: what to FETCH of all messages.
Output: a line "<messages> <SHA-256 of all that was answered>" for each command.
"""

import hashlib
import imaplib
import json
import ssl
import sys

job = json.load(sys.stdin)
m = imaplib.IMAP4_SSL("localhost", job["port"], ssl_context=ssl.create_default_context(cafile=job["ca"]))
m.login(job["user"], job["password"])
status, data = m.select(job["mailbox"], readonly=True)
assert status == "OK", data
for command in job["commands"]:
    status, data = m.fetch("1:*", command)
    assert status == "OK", data
    digest, n = hashlib.sha256(), 0
    for answer in data:
        if isinstance(answer, tuple):  # the beginning, up to a literal, and the literal
            n += 1
            for piece in answer:
                digest.update(piece)
        else:
            n += answer[:1].isdigit()
            digest.update(answer)
    print(n, digest.hexdigest())
m.logout()
