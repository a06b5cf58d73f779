"""Log in with Python's standard library: SCRAM (RFC 5802) bound by tls-unique, and EXTERNAL.

usage: scram_client.py PROTOCOL PORT CA MECHANISM USER PASSWORD [CERTIFICATE KEY]

A MECHANISM with "?" behind it says that the client could be bound and did not see the server offer it.

PROTOCOL is imap, pop or sieve. It ends with 0 if the login succeeded and, with SCRAM, the server has proved that it knows the password.
"""
import base64, hashlib, hmac, imaplib, os, poplib, socket, ssl, sys

protocol, port, ca, mechanism, user, password = sys.argv[1:7]
context = ssl.create_default_context(cafile=ca)
context.maximum_version = ssl.TLSVersion.TLSv1_2  # this library knows no other binding than that of TLS 1.2
if len(sys.argv) > 7:
    context.load_cert_chain(sys.argv[7], sys.argv[8])
deceived = mechanism.endswith("?")
mechanism = mechanism.rstrip("?")
proved = mechanism == "EXTERNAL"


def client(tls):
    """What the client says: a function from a challenge to its response."""
    if mechanism == "EXTERNAL":
        return lambda challenge: user.encode()
    digest = "sha1" if "SHA-1" in mechanism else "sha256"
    bound = mechanism.endswith("-PLUS")
    header = b"p=tls-unique,," if bound else b"y,," if deceived else b"n,,"
    binding = header + (tls.get_channel_binding("tls-unique") if bound else b"")
    nonce = base64.b64encode(os.urandom(18))
    bare = b"n=" + user.encode() + b",r=" + nonce
    state = {}

    def mac(key, text):
        return hmac.new(key, text, digest).digest()

    def respond(challenge):
        global proved
        if not challenge:
            return header + bare
        if "server" not in state:
            fields = dict(f.split(b"=", 1) for f in challenge.split(b","))
            assert fields[b"r"].startswith(nonce)
            salted = hashlib.pbkdf2_hmac(digest, password.encode(), base64.b64decode(fields[b"s"]), int(fields[b"i"]))
            final = b"c=" + base64.b64encode(binding) + b",r=" + fields[b"r"]
            said = bare + b"," + challenge + b"," + final
            key = mac(salted, b"Client Key")
            signature = mac(hashlib.new(digest, key).digest(), said)
            state["server"] = base64.b64encode(mac(mac(salted, b"Server Key"), said))
            return final + b",p=" + base64.b64encode(bytes(a ^ b for a, b in zip(key, signature)))
        proved = challenge == b"v=" + state["server"]
        return b""

    return respond


if protocol == "imap":
    c = imaplib.IMAP4_SSL("localhost", int(port), ssl_context=context)
    c.authenticate(mechanism, client(c.sock))
    c.select("INBOX")
    c.logout()
elif protocol == "pop":
    c = poplib.POP3_SSL("localhost", int(port), context=context)
    respond = client(c.sock)
    answer = c._shortcmd("AUTH " + mechanism)
    while answer.startswith(b"+ ") or answer == b"+":
        answer = c._shortcmd(base64.b64encode(respond(base64.b64decode(answer[2:]))).decode())
    c.stat()
    c.quit()
else:
    raw = socket.create_connection(("localhost", int(port)))
    stream = raw.makefile("rwb")

    def ask(line):
        if line:
            stream.write(line + b"\r\n")
            stream.flush()
        while True:
            answer = stream.readline()
            if answer[:2] in (b"OK", b"NO", b"BY") or answer == b"":
                assert answer.startswith(b"OK"), answer
                return answer

    ask(b"")
    ask(b"STARTTLS")
    raw = context.wrap_socket(raw, server_hostname="localhost")
    stream = raw.makefile("rwb")
    ask(b"")
    respond = client(raw)
    first = base64.b64encode(respond(b""))
    stream.write(b'AUTHENTICATE "%s" "%s"\r\n' % (mechanism.encode(), first))
    while True:
        stream.flush()
        answer = stream.readline().strip()
        if answer.startswith(b'"'):
            stream.write(b'"' + base64.b64encode(respond(base64.b64decode(answer.strip(b'"')))) + b'"\r\n')
            continue
        assert answer.startswith(b"OK"), answer
        if b'SASL "' in answer:  # RFC 5804 section 2.1: with the success
            respond(base64.b64decode(answer.split(b'"')[1]))
        break
    ask(b"LISTSCRIPTS")
sys.exit(0 if proved else "the server has not proved that it knows the password")
