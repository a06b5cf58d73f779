package message

import (
	"bytes"
	"strings"
	"testing"
)

func benchMessage() []byte {
	return []byte("Return-Path: <alice@example.test>\r\n" +
		strings.Repeat("Received: from a.example.test (a.example.test [192.0.2.1])\r\n\tby b.example.test with ESMTPS id abcdefgh;\r\n\tMon, 23 Nov 2026 13:40:04 +0100\r\n", 4) +
		"DKIM-Signature: v=1; a=rsa-sha256; d=example.test; s=s1; h=from:to:subject;\r\n\tb=" + strings.Repeat("abcdefgh", 30) + "\r\n" +
		"From: Alice Example <alice@example.test>\r\nTo: Bob <bob@example.test>, carol@example.test\r\n" +
		"Subject: The quarterly figures\r\nDate: Mon, 23 Nov 2026 13:40:04 +0100\r\nMessage-ID: <1@example.test>\r\n" +
		"MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=\"=_1\"\r\n\r\n" +
		"--=_1\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
		strings.Repeat("These are words of a message that says little.\r\n", 20) +
		"--=_1\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
		strings.Repeat("<p>These are words of a message that says little.</p>\r\n", 20) +
		"--=_1--\r\n")
}

func BenchmarkParse(b *testing.B) {
	msg := benchMessage()
	r := bytes.NewReader(msg)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(r, int64(len(msg)), Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseHeader(b *testing.B) {
	msg := benchMessage()
	r := bytes.NewReader(msg)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseHeader(r, int64(len(msg)), Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseBase64(b *testing.B) {
	msg := []byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: image/png\r\n\r\n" +
		strings.Repeat(strings.Repeat("A", 76)+"\r\n", 100000) + "--b--\r\n")
	r := bytes.NewReader(msg)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(r, int64(len(msg)), Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendStructure(b *testing.B) {
	msg := benchMessage()
	root := mustParse(b, msg)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = AppendStructure(AppendEnvelope(out[:0], root.Envelope, false), root, true, false)
	}
}

func BenchmarkSearchText(b *testing.B) {
	msg := benchMessage()
	root := mustParse(b, msg)
	s := &Search{}
	s.Text("not to be found")
	r := bytes.NewReader(msg)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Match(r, root); err != nil {
			b.Fatal(err)
		}
	}
}
