"""Prints "UID token" for each message of INBOX. Arguments: a line of JSON on standard input."""
import imaplib
import json
import re
import ssl
import sys

job = json.loads(sys.stdin.readline())
m = imaplib.IMAP4_SSL(job["host"], 993, ssl_context=ssl.create_default_context(cafile=job["ca"]), timeout=240)
m.login(job["user"], job["password"])
status, count = m.select("INBOX", readonly=True)
assert status == "OK", count
if int(count[0]) > 0:
    status, data = m.uid("FETCH", "1:*", "(BODY.PEEK[HEADER.FIELDS (X-Token)])")
    assert status == "OK", data
    for part in data:
        if isinstance(part, tuple):
            uid = re.search(rb"UID (\d+)", part[0])
            assert uid, part
            print(uid.group(1).decode(), part[1].decode().strip().partition(": ")[2])
m.logout()
