"""A client of Python's imaplib, as a script of a user would be one.

Reads JSON on standard input: host, imap, imaps (ports), ca, user, password, messages (latin-1 text, byte for
byte). Ends with 0 if everything was as it must be, otherwise with the traceback of the first assertion. What it
leaves behind in the mailbox Py/Kept is looked at by the caller.
"""
import imaplib
import json
import re
import ssl
import sys
import time

job = json.load(sys.stdin)
messages = [m.encode("latin-1") for m in job["messages"]]
context = ssl.create_default_context(cafile=job["ca"])


def ok(answer):
    """The data of an answer that must be OK."""
    status, data = answer
    assert status == "OK", answer
    return data


def refused(call, *args):
    """The text with which the server refuses."""
    try:
        status, data = call(*args)
    except imaplib.IMAP4.error as e:
        return str(e)
    assert status != "OK", (call, args, data)
    return repr(data)


def bodies(data):
    """What FETCH of one literal each has given."""
    return [part[1] for part in data if isinstance(part, tuple)]


# Without TLS there is no login; with STARTTLS there is.
m = imaplib.IMAP4(job["host"], job["imap"])
assert "LOGINDISABLED" in m.capabilities, m.capabilities
assert "PRIVACYREQUIRED" in refused(m.login, job["user"], job["password"])
ok(m.starttls(context))
assert "LOGINDISABLED" not in m.capabilities, m.capabilities
assert "AUTHENTICATIONFAILED" in refused(m.login, job["user"], "wrong")
ok(m.authenticate("PLAIN", lambda _: b"\0" + job["user"].encode() + b"\0" + job["password"].encode()))
ok(m.noop())
assert m.logout()[0] == "BYE"

# TLS from the first byte.
m = imaplib.IMAP4_SSL(job["host"], job["imaps"], ssl_context=context)
ok(m.login(job["user"], job["password"]))

# Mailboxes, also with a name that is not ASCII and one with a blank and a quote.
ok(m.create("Py/Work"))
assert "ALREADYEXISTS" in refused(m.create, "Py/Work")
ok(m.create('"with blank and \\" quote"'))
ok(m.create('"Entw&APw-rfe"'))
ok(m.subscribe("Py/Work"))
names = b"\n".join(ok(m.list()))
assert b"Py/Work" in names and b"&APw-" in names and b'\\" quote' in names, names
assert b"Py/Work" in b" ".join(ok(m.lsub()))
ok(m.rename('"Entw&APw-rfe"', "Drafts2"))
ok(m.delete("Drafts2"))
ok(m.delete('"with blank and \\" quote"'))
assert b"Drafts2" not in b"\n".join(ok(m.list()))
assert b"/" in ok(m.namespace())[0]
assert refused(m.select, "Nowhere")

# APPEND with flags and a date; what comes back is byte for byte the same.
when = 1600000000
for number, text in enumerate(messages):
    flags = r"(\Seen \Draft)" if number == 0 else None
    uid = ok(m.append("Py/Work", flags, imaplib.Time2Internaldate(when + number), text))
    assert b"APPENDUID" in uid[0], uid
assert refused(m.append, "Nowhere", None, None, messages[0]).find("TRYCREATE") >= 0
assert int(ok(m.select("Py/Work"))[0]) == len(messages)
assert bodies(ok(m.fetch("1:*", "(BODY.PEEK[])"))) == messages
assert bodies(ok(m.uid("FETCH", "1:*", "(RFC822.SIZE BODY.PEEK[])"))) == messages
first = b" ".join(ok(m.fetch("1", "(UID FLAGS INTERNALDATE RFC822.SIZE)")))
assert b"\\Draft" in first and b"\\Seen" in first and b"RFC822.SIZE %d" % len(messages[0]) in first, first
assert time.mktime(imaplib.Internaldate2tuple(first)) == when, first
header, text = bodies(ok(m.fetch("2", "(BODY.PEEK[HEADER] BODY.PEEK[TEXT])")))
assert header + text == messages[1]
assert bodies(ok(m.fetch("2", "(BODY.PEEK[]<5.20>)"))) == [messages[1][5:25]]
assert b"ENVELOPE" in ok(m.fetch("2", "(ENVELOPE BODYSTRUCTURE)"))[0]
assert b"FLAGS (\\Seen" not in b" ".join(ok(m.fetch("2", "(FLAGS)"))), "PEEK has set a flag"
ok(m.fetch("2", "(RFC822)"))
assert b"\\Seen" in b" ".join(ok(m.fetch("2", "(FLAGS)"))), "RFC822 sets the flag"

# STORE and SEARCH.
ok(m.store("1:2", "+FLAGS", r"(\Flagged $Python)"))
assert ok(m.search(None, "FLAGGED")) == [b"1 2"]
assert ok(m.search(None, "KEYWORD", "$Python", "SUBJECT", '"letter-1"')) == [b"2"]
ok(m.store("2", "-FLAGS.SILENT", r"(\Flagged)"))
assert ok(m.search(None, "UNFLAGGED", "KEYWORD", "$Python")) == [b"2"]
m.literal = "Grüße".encode()
assert ok(m.search("UTF-8", "BODY")) == [b"3"]
m.literal = "Grüße aus Köln".encode()
found = ok(m.uid("SEARCH", "CHARSET", "UTF-8", "SUBJECT"))
assert len(found[0].split()) == 1, found
assert ok(m.search(None, "LARGER", "100000"))[0] != b""

# SORT and THREAD.
order = [int(n) for n in ok(m.sort("(REVERSE SIZE)", "UTF-8", "ALL"))[0].split()]
assert order == sorted(range(1, len(messages) + 1), key=lambda n: (-len(messages[n - 1]), n)), order
assert ok(m.sort("SUBJECT", "UTF-8", "1:2")) == [b"1 2"]
assert ok(m.uid("SORT", "(REVERSE ARRIVAL)", "US-ASCII", "1:3")) == [b"3 2 1"]
assert ok(m.thread("REFERENCES", "UTF-8", "1:2")) == [b"(1)(2)"]
assert ok(m.uid("THREAD", "ORDEREDSUBJECT", "UTF-8", "1:2")) == [b"(1)(2)"]

# COPY, MOVE, EXPUNGE.
ok(m.create("Py/Kept"))
ok(m.copy("1:*", "Py/Kept"))
assert "TRYCREATE" in refused(m.copy, "1", "Nowhere")
ok(m.store("1", "+FLAGS", r"(\Deleted)"))
assert ok(m.expunge()) == [b"1"]
assert int(ok(m.select("Py/Work"))[0]) == len(messages) - 1
assert bodies(ok(m.fetch("1", "(BODY.PEEK[])"))) == [messages[1]]
ok(m.uid("MOVE", "3:*", "Py/Kept"))
status = ok(m.status("Py/Kept", "(MESSAGES UIDNEXT UNSEEN)"))[0]
assert b"MESSAGES %d" % (2 * len(messages) - 2) in status, status
ok(m.select("Py/Kept", readonly=True))
assert sorted(bodies(ok(m.fetch("1:*", "(BODY.PEEK[])")))) == sorted(messages + messages[2:])
assert refused(m.store, "1", "+FLAGS", r"(\Seen)")
ok(m.unselect())

# ENABLE, and IDLE: in the library since 3.14, by hand before that.
ok(m.enable("CONDSTORE"))
ok(m.select("INBOX"))
if hasattr(m, "idle"):
    with m.idle(duration=20) as idler:
        append = imaplib.IMAP4_SSL(job["host"], job["imaps"], ssl_context=context)
        ok(append.login(job["user"], job["password"]))
        ok(append.append("INBOX", None, None, messages[0]))
        append.logout()
        assert next(idler)[0] == "EXISTS"
else:
    m.send(b"I1 IDLE\r\n")
    assert m.readline().startswith(b"+")
    append = imaplib.IMAP4_SSL(job["host"], job["imaps"], ssl_context=context)
    ok(append.login(job["user"], job["password"]))
    ok(append.append("INBOX", None, None, messages[0]))
    append.logout()
    line = m.readline()
    assert re.match(rb"\* \d+ EXISTS", line), line
    m.send(b"DONE\r\n")
    while not line.startswith(b"I1 "):
        line = m.readline()
    assert line.startswith(b"I1 OK"), line
assert int(ok(m.search(None, "ALL"))[0].split()[-1]) >= 1
ok(m.close())
assert m.logout()[0] == "BYE"
