"""Selects INBOX, begins IDLE and prints what the server says until standard input ends. Arguments: a line of JSON."""
import imaplib
import json
import ssl
import sys
import threading

job = json.loads(sys.stdin.readline())
m = imaplib.IMAP4_SSL(job["host"], 993, ssl_context=ssl.create_default_context(cafile=job["ca"]), timeout=240)
m.login(job["user"], job["password"])
assert m.select("INBOX")[0] == "OK"
m.send(b"i1 IDLE\r\n")


def end():
    sys.stdin.read()
    m.send(b"DONE\r\n")


threading.Thread(target=end, daemon=True).start()
while True:
    line = m.readline()
    if not line or line.startswith(b"i1 "):
        break
    print(line.decode().rstrip())
