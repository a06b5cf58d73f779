package ldapwire

import (
	"reflect"
	"testing"

	"github.com/go-ldap/ldap/v3"
)

var uuids = [][16]byte{{1, 2, 3}, {15: 9}}

// What is appended is read back as it was.
func TestSyncRoundTrip(t *testing.T) {
	for _, r := range []SyncRequest{{}, {Persist: true}, {Persist: true, Cookie: []byte("rid=001"), ReloadHint: true}, {Cookie: []byte{}}} {
		var got SyncRequest
		if err := got.Parse(r.Append(nil)); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v became %+v, %v", r, got, err)
		}
	}
	for _, i := range []SyncInfo{
		{Kind: SyncNewCookie, Cookie: []byte("c")}, {Kind: SyncRefreshDelete, RefreshDone: true}, {Kind: SyncRefreshPresent, Cookie: []byte("c")},
		{Kind: SyncIDSet, UUIDs: uuids}, {Kind: SyncIDSet, UUIDs: uuids, RefreshDeletes: true, Cookie: []byte("c")},
	} {
		var got SyncInfo
		if err := got.Parse(i.Append(nil)); err != nil || !reflect.DeepEqual(got, i) {
			t.Errorf("%+v became %+v, %v", i, got, err)
		}
	}
	for _, csns := range [][]string{nil, {"20261123112421.918344Z#000000#000#000000"}, {"20261123112421.918344Z#000000#000#000000", "20261123112421.918344Z#000000#001#000000"}} {
		c := SyncCookie{RID: "007", CSNs: csns}
		got, err := ParseSyncCookie(c.Append(nil))
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%+v became %+v, %v", c, got, err)
		}
	}
	if got, err := ParseSyncCookie([]byte("rid=000,sid=001,csn=20261123112421.918344Z#000000#000#000000,delcsn=x")); err != nil || len(got.CSNs) != 1 {
		t.Errorf("OpenLDAP's cookie: %+v, %v", got, err)
	}
}

// go-ldap reads what we write.
func TestSyncForTheOracle(t *testing.T) {
	var m Message
	b := AppendEntryStart(nil, 7, 4, 0, len(AppendSyncState(nil, SyncModify, uuids[0], []byte("c"))))
	b = AppendEntryEnd(AppendEntryAttributes(append(b, "cn=x"...), 0), AppendSyncState(nil, SyncModify, uuids[0], []byte("c")))
	if err := m.Parse(b, Limits{}); err != nil || string(m.Controls[0].Type) != OIDSyncState {
		t.Fatalf("%+v, %v", m, err)
	}
	state, uuid, cookie, err := ParseSyncState(m.Controls[0].Value)
	if err != nil || state != SyncModify || uuid != uuids[0] || string(cookie) != "c" {
		t.Errorf("%v %v %q %v", state, uuid, cookie, err)
	}
	theirs := ldap.NewControlSyncRequest(ldap.SyncRequestModeRefreshAndPersist, []byte("rid=001"), true).Encode()
	var c Control
	if c, _, err = takeControl(theirs.Bytes()); err != nil {
		t.Fatal(err)
	}
	var r SyncRequest
	if err := r.Parse(c.Value); err != nil || !r.Persist || !r.ReloadHint || string(r.Cookie) != "rid=001" {
		t.Errorf("%+v, %v", r, err)
	}
	cookie, deletes, err := ParseSyncDone(func() []byte { c, _, _ := takeControl(AppendSyncDone(nil, []byte("c"), true)); return c.Value }())
	if err != nil || !deletes || string(cookie) != "c" {
		t.Errorf("%q %v %v", cookie, deletes, err)
	}
}

// No input of a provider or a consumer breaks the readers; what they accept, they read again as the same.
func FuzzSync(f *testing.F) {
	f.Add((&SyncRequest{Persist: true, Cookie: []byte("rid=001,csn=20261123112421.918344Z#000000#000#000000")}).Append(nil))
	f.Add((&SyncInfo{Kind: SyncIDSet, UUIDs: uuids, RefreshDeletes: true}).Append(nil))
	f.Add((&SyncInfo{Kind: SyncRefreshPresent, RefreshDone: true, Cookie: []byte("c")}).Append(nil))
	f.Add((&SyncInfo{Kind: SyncNewCookie, Cookie: []byte("c")}).Append(nil))
	f.Add([]byte("rid=000,csn=20261123112421.918344Z#000000#000#000000;20261123112421.918344Z#000000#001#000000"))
	f.Add([]byte{0x30, 0x15, 0x0a, 1, 1, 4, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	f.Add([]byte{0x30, 6, 0x80, 1, 'a', 0x82, 1, 'b'})
	f.Add([]byte{0x0a, 1, 10, 4, 0, 4, 0, 0xa3, 5, 4, 3, 'x', ':', '/'})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again SyncRequest
		if r.Parse(b) == nil {
			if err := again.Parse(r.Append(nil)); err != nil || !reflect.DeepEqual(r, again) {
				t.Errorf("%+v became %+v, %v", r, again, err)
			}
		}
		var i, info SyncInfo
		if i.Parse(b) == nil {
			if err := info.Parse(i.Append(nil)); err != nil || len(i.UUIDs) != len(info.UUIDs) || i.RefreshDone != info.RefreshDone || i.RefreshDeletes != info.RefreshDeletes {
				t.Errorf("%+v became %+v, %v", i, info, err)
			}
		}
		if c, err := ParseSyncCookie(b); err == nil {
			if c2, err := ParseSyncCookie(c.Append(nil)); err != nil || !reflect.DeepEqual(c.CSNs, c2.CSNs) {
				t.Errorf("%+v became %+v, %v", c, c2, err)
			}
		}
		var p PasswordModify
		var res Result
		var e Entry
		_, _, _, _ = ParseSyncState(b)
		_, _, _ = ParseSyncDone(b)
		_, _, _ = ParseIntermediate(b)
		_, _, _ = p.Parse(b, true), res.Parse(b), ParseEntry(&e, b, Limits{})
	})
}
