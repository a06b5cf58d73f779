package queue

import (
	"bytes"
	"strings"
	"testing"
)

// A batch of this version, byte for byte: later versions must read it.
func TestGoldenBatch(t *testing.T) {
	x := indexEntry{Offset: 16, Length: 3, Checksum: 0x364b3fb7, Envelope: Envelope{From: "a@b.test", Recipients: []Recipient{{Address: "c@d.test", Notify: "NEVER"}}, Trace: "t1", Accepted: 1, Expires: 2}}
	b, err := appendIndex([]byte(batchMagic+"abc"), 19, []indexEntry{x})
	if err != nil {
		t.Fatal(err)
	}
	const want = "shoal-batch 1.0\nabc" +
		`{"off":16,"len":3,"crc":910901175,"from":"a@b.test","to":[{"a":"c@d.test","n":"NEVER"}],"trace":"t1","at":1,"exp":2}` + "\n"
	if !strings.HasPrefix(string(b), want) || len(b) != len(want)+trailerLen {
		t.Fatalf("%q", b)
	}
	off, length, crc, err := parseTrailer(b[len(b)-trailerLen:], int64(len(b)))
	if err != nil || off != 19 || int(length) != len(want)-19 {
		t.Fatal(off, length, err)
	}
	back, err := parseIndex(b[off:off+length], off, crc)
	if err != nil || len(back) != 1 || back[0].Recipients[0].Notify != "NEVER" {
		t.Fatal(back, err)
	}
}

func FuzzIndex(f *testing.F) {
	b, _ := appendIndex(nil, 16, []indexEntry{{Offset: 16, Envelope: envelope("a@b.test")}})
	f.Add(b)
	f.Add([]byte("end 0000000000000010 0000000000000000 00000000\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < trailerLen {
			return
		}
		off, length, crc, err := parseTrailer(b[len(b)-trailerLen:], int64(len(b)))
		if err != nil {
			return
		}
		index, err := parseIndex(b[off:off+length], off, crc)
		if err != nil {
			return
		}
		for _, e := range index {
			if e.Offset+e.Length > off || e.Length < 0 {
				t.Fatalf("content outside of the batch: %+v", e)
			}
		}
	})
}

func FuzzLog(f *testing.F) {
	line, _ := (&progress{Entry: "1.0", Attempts: 1, Outcomes: []Outcome{{State: Delivered}}}).appendLine(nil)
	f.Add(append(bytes.Clone(line), line...))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		parseLog(b, func(progress) { n++ })
		if n > len(b)/10 {
			t.Fatalf("%d lines in %d bytes", n, len(b))
		}
		if n2 := 0; len(b) > 0 {
			parseLog(b[:len(b)-1], func(progress) { n2++ })
			if n2 > n {
				t.Fatal("a shorter log has more lines")
			}
		}
	})
}
