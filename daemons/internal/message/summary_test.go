package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"reflect"
	"testing"
)

func packed(t testing.TB, b []byte) (*Summary, []byte) {
	t.Helper()
	root := mustParse(t, b)
	text, err := Preview(bytes.NewReader(b), root, 200)
	if err != nil {
		t.Fatal(err)
	}
	s := &Summary{Size: int64(len(b)), Root: root, Preview: text}
	return s, s.Pack(nil)
}

func TestSummary(t *testing.T) {
	for name, b := range fixtures(t) {
		want, p := packed(t, b)
		got, err := UnpackSummary(p)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%s\n%s", name, describe(got.Root, b), describe(want.Root, b))
		}
		if again := got.Pack(nil); !bytes.Equal(again, p) {
			t.Errorf("%s: packed again it is something else", name)
		}
	}
}

// One changed bit, a missing byte, another version: refused.
func TestSummaryIsExact(t *testing.T) {
	_, p := packed(t, fixtures(t)["forward"])
	for i := range p {
		bad := bytes.Clone(p)
		bad[i] ^= 1 << (i % 8)
		if _, err := UnpackSummary(bad); !errors.Is(err, ErrBadSummary) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := UnpackSummary(p[:i]); !errors.Is(err, ErrBadSummary) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := UnpackSummary(append(bytes.Clone(p), 0)); !errors.Is(err, ErrBadSummary) {
		t.Error("a byte too many is accepted")
	}
}

// FuzzSummary gives the checksum of its own to any bytes, so that what is behind it is reached.
func FuzzSummary(f *testing.F) {
	for _, name := range []string{"plain", "forward", "alternative", "addresses", "rfc2231"} {
		_, p := packed(f, fixtures(f)[name])
		f.Add(p[:len(p)-4])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := UnpackSummary(binary.LittleEndian.AppendUint32(bytes.Clone(b), crc32.Checksum(b, castagnoli)))
		if err != nil {
			if !errors.Is(err, ErrBadSummary) {
				t.Fatal(err)
			}
			return
		}
		again, err := UnpackSummary(s.Pack(nil))
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%+v packed and unpacked is %+v, %v", s, again, err)
		}
		AppendStructure(AppendEnvelope(nil, s.Root.Envelope, true), s.Root, true, true)
	})
}

func BenchmarkUnpackSummary(b *testing.B) {
	_, p := packed(b, benchMessage())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := UnpackSummary(p); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(p)), "packed-bytes")
}
