"""Sends mail over LMTP, with a switch's certificate, now to one box and now to another, until standard input ends.

Prints "try TOKEN" before each attempt and "ok TOKEN" when a box has taken the message. A message that got no such answer is
sent again. Arguments: a line of JSON on standard input.
"""
import itertools
import json
import select
import smtplib
import ssl
import sys

job = json.loads(sys.stdin.readline())
context = ssl.create_default_context(cafile=job["ca"])
context.load_cert_chain(job["cert"], job["key"])
boxes = itertools.cycle(job["boxes"])


def connect():
    c = smtplib.LMTP(next(boxes), 24, local_hostname="switch1", timeout=45)
    c.starttls(context=context)
    c.ehlo_or_helo_if_needed()
    return c


def over():
    return bool(select.select([sys.stdin], [], [], 0)[0])


c, used = None, 0
for n in itertools.count():
    token = "%s.%d" % (job["name"], n)
    text = "X-Token: %s\r\nSubject: load\r\n\r\n%s\r\n" % (token, "x" * 70 * (n % 40))
    while not over():
        try:
            if c is None:
                c, used = connect(), 0
            print("try", token)
            refused = c.sendmail("sender@example.org", [job["user"]], text)
            assert not refused, refused
            print("ok", token)
            break
        except (OSError, smtplib.SMTPException) as e:
            print("no", token, repr(e))
            if c is not None:
                c.close()
            c = None
    if over():
        break
    used += 1
    if used == 20:
        c.quit()
        c = None
