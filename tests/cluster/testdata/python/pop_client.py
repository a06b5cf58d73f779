"""A client of Python's poplib, as a script of a user would be one.

Reads JSON on standard input: host, pop3, pop3s (ports), ca, user, password, messages (latin-1 text, byte for
byte, in the order of the mailbox). Deletes the first message. Ends with 0 if everything was as it must be,
otherwise with the traceback of the first assertion.
"""
import json
import poplib
import ssl
import sys

job = json.load(sys.stdin)
messages = [m.encode("latin-1") for m in job["messages"]]
# To a client that does not say UTF8 headers go out in ASCII (RFC 6856, RFC 6858).
shown = [m.replace("Grüße aus Köln".encode(), b"=?utf-8?B?R3LDvMOfZSBhdXMgS8O2bG4=?=") for m in messages]
assert shown != messages
context = ssl.create_default_context(cafile=job["ca"])


def text(answer):
    """The message of RETR or TOP, line ends restored."""
    return b"".join(line + b"\r\n" for line in answer[1])


def refused(call, *args):
    try:
        call(*args)
    except poplib.error_proto as e:
        return str(e)
    raise AssertionError(f"{call} {args} was not refused")


# Without TLS there is no login; with STLS there is.
p = poplib.POP3(job["host"], job["pop3"])
capabilities = p.capa()
assert "STLS" in capabilities and "USER" not in capabilities, capabilities
refused(p.user, job["user"])
p.stls(context)
capabilities = p.capa()
assert "STLS" not in capabilities and "USER" in capabilities, capabilities
assert "UIDL" in capabilities and "TOP" in capabilities and "PLAIN" in capabilities["SASL"], capabilities
p.user(job["user"])
assert "AUTH" in refused(p.pass_, "wrong")
p.user(job["user"])
p.pass_(job["password"])
assert p.stat() == (len(messages), sum(map(len, messages))), p.stat()
uids = [line.split()[1] for line in p.uidl()[1]]
assert len(set(uids)) == len(messages)
for number, message in enumerate(shown, 1):
    assert text(p.retr(number)) == message, number
p.quit()

# With UTF8: byte for byte what was stored.
p = poplib.POP3_SSL(job["host"], job["pop3s"], context=context)
p.utf8()
p.user(job["user"])
p.pass_(job["password"])
for number, message in enumerate(messages, 1):
    assert text(p.retr(number)) == message, number
p.quit()

# TLS from the first byte: the same identifiers; TOP; what is deleted and what is not.
p = poplib.POP3_SSL(job["host"], job["pop3s"], context=context)
p.user(job["user"])
p.pass_(job["password"])
assert [line.split()[1] for line in p.uidl()[1]] == uids
assert p.uidl(2).split()[2] == uids[1]
assert p.list(2).split()[2] == str(len(messages[1])).encode()
assert len(p.list()[1]) == len(messages)
header, body = messages[1].split(b"\r\n\r\n", 1)
assert text(p.top(2, 0)) == header + b"\r\n\r\n"
assert text(p.top(2, 1)) == header + b"\r\n\r\n" + body.split(b"\r\n")[0] + b"\r\n"
p.dele(1)
refused(p.retr, 1)
p.rset()
assert text(p.retr(1)) == messages[0]
p.dele(1)
p.dele(2)
p.noop()
p.close()  # no QUIT: nothing is deleted (RFC 1939 §6)

p = poplib.POP3_SSL(job["host"], job["pop3s"], context=context)
p.user(job["user"])
p.pass_(job["password"])
assert len(p.uidl()[1]) == len(messages)
p.dele(1)
refused(p.dele, 1)
refused(p.retr, len(messages) + 1)
p.quit()

p = poplib.POP3_SSL(job["host"], job["pop3s"], context=context)
p.user(job["user"])
p.pass_(job["password"])
assert [line.split()[1] for line in p.uidl()[1]] == uids[1:]
p.quit()
