"""Two users of Python's imaplib at two boxes: the one shares a mailbox, the other uses it.

Reads JSON on standard input: host, ports (of two boxes, with TLS), ca, owner, member (each address, password), group, public. Ends with 0 if
everything was as it must be.
"""
import imaplib
import json
import ssl
import sys

job = json.load(sys.stdin)
context = ssl.create_default_context(cafile=job["ca"])


def ok(answer):
    status, data = answer
    assert status == "OK", answer
    return data


def refused(call, *args):
    try:
        status, data = call(*args)
    except imaplib.IMAP4.error as e:
        return str(e)
    assert status != "OK", (call, args, data)
    return repr(data)


def login(who, box):
    c = imaplib.IMAP4_SSL(job["host"], job["ports"][box], ssl_context=context, timeout=60)
    ok(c.login(job[who]["address"], job[who]["password"]))
    return c


def names(data):
    """The names of LIST responses."""
    return [line.decode().split(' "/" ', 1)[1].strip('"') for line in data if line]


owner, member = login("owner", 0), login("member", 1)
assert "ACL" in owner.capabilities or "ACL" in ok(owner.capability())[0].decode().split()
local = job["owner"]["address"].split("@")[0]
base = "Other Users/" + local
theirs = '"%s/Team"' % base

# NAMESPACE tells where to look; nothing is there yet
assert b'(("Other Users/" "/"))' in ok(member.namespace())[0]
assert not [n for n in names(ok(member.list('""', '"Other Users/*"'))) if n.startswith(base)]
assert "NONEXISTENT" in refused(member.select, theirs)

# shared at one box, seen at the other with the next command
ok(owner.create("Team"))
ok(owner.append("Team", r"(\Flagged)", None, b"Subject: one\r\n\r\nfirst\r\n"))
ok(owner.setacl("Team", job["member"]["address"], "lr"))
assert job["member"]["address"].encode() in ok(owner.getacl("Team"))[0]
listed = [n for n in names(ok(member.list('""', '"Other Users/*"'))) if n.startswith(base)]
assert listed == [base, base + "/Team"], listed
assert ok(member.myrights(theirs))[0].endswith(b" lr"), member.myrights(theirs)
assert ok(member.select(theirs, readonly=True)) == [b"1"]
assert ok(member.fetch("1", "(BODY[TEXT])"))[0][1] == b"first\r\n"
# imaplib itself objects to a mailbox that is read-only when it wanted to write
assert "NOPERM" in refused(member.append, theirs, None, None, b"a: b\r\n\r\n")
assert "NOPERM" in refused(member.setacl, theirs, job["member"]["address"], "lra")
assert "NOPERM" in refused(member.delete, theirs)

# more rights, in force at once at the other box, in the session that has the mailbox selected
ok(owner.setacl("Team", job["member"]["address"], "+swite"))
ok(member.select(theirs))
ok(member.store("1", "+FLAGS", r"(\Answered)"))
ok(member.append(theirs, r"(\Seen)", None, b"Subject: two\r\n\r\nsecond\r\n"))
ok(owner.select("Team"))
assert rb"\Answered" in ok(owner.fetch("1", "(FLAGS)"))[0]
assert b"second\r\n" == ok(owner.fetch("2", "(BODY.PEEK[TEXT])"))[0][1]
ok(member.copy("1:2", "INBOX"))
ok(owner.setacl("Team", job["member"]["address"], "-w"))
ok(member.noop())
assert "NOPERM" in refused(member.store, "1", "-FLAGS", r"(\Answered)")
ok(member.store("2", "+FLAGS", r"(\Deleted)"))
ok(member.expunge())
ok(owner.noop())
assert ok(owner.select("Team")) == [b"1"]

# METADATA: a shared annotation is seen, a private one is one's own
owner.xatom("SETMETADATA", "Team", '(/shared/comment "ours" /private/comment "mine")')
typ, _ = member.xatom("GETMETADATA", theirs, "(/shared/comment /private/comment)")
assert typ == "OK"
got = member.response("METADATA")[1][0]
assert b'/shared/comment "ours"' in got and b"/private/comment NIL" in got, got

# a group of the directory
ok(owner.deleteacl("Team", job["member"]["address"]))
assert "NONEXISTENT" in refused(member.myrights, theirs)
member = login("member", 1)
ok(owner.setacl("Team", "group:" + job["group"], "lrs"))
assert ok(member.myrights(theirs))[0].endswith(b" lrs")
assert base + "/Team" in names(ok(member.list('""', '"Other Users/*"')))
ok(owner.setacl("Team", "-" + job["member"]["address"], "r"))
assert ok(member.myrights(theirs))[0].endswith(b" ls")
assert "NOPERM" in refused(member.select, theirs)
ok(owner.setacl("Team", "-" + job["member"]["address"], '""'))

# public mailboxes, by both
for c in owner, member:
    found = names(ok(c.list('""', '"Public Folders/*"')))
    for name in job["public"]:
        assert "Public Folders/" + name in found, (name, found)
ok(member.select('"Public Folders/%s"' % job["public"][0]))

# rights that are taken away end the session that reads, at the other box
ok(member.select(theirs, readonly=True))
ok(owner.deleteacl("Team", "group:" + job["group"]))
try:
    member.noop()
    member.noop()
    raise AssertionError("the session goes on")
except (imaplib.IMAP4.abort, ConnectionError, ssl.SSLError):
    pass
# what the callers look at
ok(owner.setacl("Team", job["member"]["address"], "lrswite"))
