package ldapwire

// The content synchronization operation (RFC 4533): the controls and messages of both sides.
//
//	syncRequestValue ::= SEQUENCE { mode ENUMERATED { refreshOnly (1), refreshAndPersist (3) },
//	    cookie OCTET STRING OPTIONAL, reloadHint BOOLEAN DEFAULT FALSE }
//	syncStateValue ::= SEQUENCE { state ENUMERATED { present (0), add (1), modify (2), delete (3) },
//	    entryUUID OCTET STRING (SIZE(16)), cookie OCTET STRING OPTIONAL }
//	syncDoneValue ::= SEQUENCE { cookie OCTET STRING OPTIONAL, refreshDeletes BOOLEAN DEFAULT FALSE }
//	syncInfoValue ::= CHOICE {
//	    newcookie      [0] OCTET STRING,
//	    refreshDelete  [1] SEQUENCE { cookie OPTIONAL, refreshDone BOOLEAN DEFAULT TRUE },
//	    refreshPresent [2] SEQUENCE { cookie OPTIONAL, refreshDone BOOLEAN DEFAULT TRUE },
//	    syncIdSet      [3] SEQUENCE { cookie OPTIONAL, refreshDeletes BOOLEAN DEFAULT FALSE,
//	                                  syncUUIDs SET OF OCTET STRING (SIZE(16)) } }

// SyncRequest is the value of the sync request control (RFC 4533 §2.2).
type SyncRequest struct {
	Persist    bool   // refreshAndPersist; otherwise refreshOnly
	Cookie     []byte // nil for none
	ReloadHint bool   // the client prefers a whole refresh to the answer e-syncRefreshRequired
}

// Modes of a sync request.
const (
	syncRefreshOnly       = 1
	syncRefreshAndPersist = 3
)

// Parse reads the value of a sync request control.
func (r *SyncRequest) Parse(value []byte) error {
	*r = SyncRequest{}
	seq, _, err := expect(value, tagSequence)
	if err != nil {
		return err
	}
	mode, seq, err := takeInteger(seq, tagEnumerated)
	if err != nil {
		return err
	}
	if mode != syncRefreshOnly && mode != syncRefreshAndPersist {
		return Errorf(ProtocolError, "sync mode %d", mode)
	}
	r.Persist = mode == syncRefreshAndPersist
	if r.Cookie, seq, err = optionalString(seq); err != nil {
		return err
	}
	if len(seq) > 0 {
		r.ReloadHint, _, err = takeBoolean(seq, tagBoolean)
	}
	return err
}

// Append appends the value of a sync request control.
func (r *SyncRequest) Append(dst []byte) []byte {
	start := len(dst)
	mode := int32(syncRefreshOnly)
	if r.Persist {
		mode = syncRefreshAndPersist
	}
	dst = appendInteger(dst, tagEnumerated, mode)
	dst = appendOptional(dst, r.Cookie)
	if r.ReloadHint {
		dst = appendBoolean(dst, tagBoolean, true)
	}
	return wrap(dst, start, tagSequence)
}

func optionalString(b []byte) (s, rest []byte, err error) {
	if len(b) == 0 || b[0] != tagOctetString {
		return nil, b, nil
	}
	if s, rest, err = expect(b, tagOctetString); s == nil {
		s = []byte{}
	}
	return s, rest, err
}

func appendOptional(dst, s []byte) []byte {
	if s == nil {
		return dst
	}
	return appendString(dst, tagOctetString, s)
}

// SyncState says what a search result entry means to a replica (RFC 4533 §2.3).
type SyncState int32

// States.
const (
	SyncPresent SyncState = 0
	SyncAdd     SyncState = 1
	SyncModify  SyncState = 2
	SyncDelete  SyncState = 3
)

// AppendSyncState appends a whole sync state control; a nil cookie is none.
func AppendSyncState(dst []byte, state SyncState, uuid [16]byte, cookie []byte) []byte {
	v := make([]byte, 0, 32+len(cookie))
	v = appendInteger(v, tagEnumerated, int32(state))
	v = appendString(v, tagOctetString, uuid[:])
	v = appendOptional(v, cookie)
	return AppendControl(dst, OIDSyncState, false, wrap(v, 0, tagSequence))
}

// ParseSyncState reads the value of a sync state control. cookie is nil for none.
func ParseSyncState(value []byte) (state SyncState, uuid [16]byte, cookie []byte, err error) {
	seq, _, err := expect(value, tagSequence)
	if err != nil {
		return 0, uuid, nil, err
	}
	n, seq, err := takeInteger(seq, tagEnumerated)
	if err != nil {
		return 0, uuid, nil, err
	}
	if n < int32(SyncPresent) || n > int32(SyncDelete) {
		return 0, uuid, nil, Errorf(ProtocolError, "sync state %d", n)
	}
	id, seq, err := expect(seq, tagOctetString)
	if err != nil {
		return 0, uuid, nil, err
	}
	if copy(uuid[:], id) != 16 || len(id) != 16 {
		return 0, uuid, nil, Errorf(ProtocolError, "entryUUID of %d octets", len(id))
	}
	cookie, _, err = optionalString(seq)
	return SyncState(n), uuid, cookie, err
}

// AppendSyncDone appends a whole sync done control (RFC 4533 §2.4).
func AppendSyncDone(dst, cookie []byte, refreshDeletes bool) []byte {
	v := appendOptional(nil, cookie)
	if refreshDeletes {
		v = appendBoolean(v, tagBoolean, true)
	}
	return AppendControl(dst, OIDSyncDone, false, wrap(v, 0, tagSequence))
}

// ParseSyncDone reads the value of a sync done control.
func ParseSyncDone(value []byte) (cookie []byte, refreshDeletes bool, err error) {
	seq, _, err := expect(value, tagSequence)
	if err != nil {
		return nil, false, err
	}
	if cookie, seq, err = optionalString(seq); err != nil || len(seq) == 0 {
		return cookie, false, err
	}
	refreshDeletes, _, err = takeBoolean(seq, tagBoolean)
	return cookie, refreshDeletes, err
}

// SyncInfoKind is the choice of a sync info message.
type SyncInfoKind byte

// Choices of RFC 4533 §2.5, numbered as their tags.
const (
	SyncNewCookie      SyncInfoKind = 0x80
	SyncRefreshDelete  SyncInfoKind = 0xa1
	SyncRefreshPresent SyncInfoKind = 0xa2
	SyncIDSet          SyncInfoKind = 0xa3
)

// SyncInfo is the value of a sync info message, an intermediate response.
type SyncInfo struct {
	Kind           SyncInfoKind
	Cookie         []byte // nil for none
	RefreshDone    bool   // refreshDelete, refreshPresent: the refresh stage ends
	RefreshDeletes bool   // syncIdSet: the entries are deleted; otherwise they are present
	UUIDs          [][16]byte
}

// Append appends the value of a sync info message.
func (i *SyncInfo) Append(dst []byte) []byte {
	if i.Kind == SyncNewCookie {
		return appendString(dst, byte(SyncNewCookie), i.Cookie)
	}
	start := len(dst)
	dst = appendOptional(dst, i.Cookie)
	switch i.Kind {
	case SyncRefreshDelete, SyncRefreshPresent:
		if !i.RefreshDone {
			dst = appendBoolean(dst, tagBoolean, false)
		}
	case SyncIDSet:
		if i.RefreshDeletes {
			dst = appendBoolean(dst, tagBoolean, true)
		}
		dst = appendHeader(dst, tagSet, 18*len(i.UUIDs))
		for _, u := range i.UUIDs {
			dst = appendString(dst, tagOctetString, u[:])
		}
	}
	return wrap(dst, start, byte(i.Kind))
}

// Parse reads the value of a sync info message, reusing the slice of UUIDs.
func (i *SyncInfo) Parse(value []byte) error {
	*i = SyncInfo{UUIDs: i.UUIDs[:0]}
	tag, c, _, err := element(value)
	if err != nil {
		return err
	}
	i.Kind = SyncInfoKind(tag)
	switch i.Kind {
	case SyncNewCookie:
		i.Cookie = c
		return nil
	case SyncRefreshDelete, SyncRefreshPresent:
		i.RefreshDone = true
		if i.Cookie, c, err = optionalString(c); err == nil && len(c) > 0 {
			i.RefreshDone, _, err = takeBoolean(c, tagBoolean)
		}
		return err
	case SyncIDSet:
		return i.parseIDSet(c)
	}
	return Errorf(ProtocolError, "sync info choice 0x%02x", tag)
}

func (i *SyncInfo) parseIDSet(c []byte) (err error) {
	if i.Cookie, c, err = optionalString(c); err != nil {
		return err
	}
	if len(c) > 0 && c[0] == tagBoolean {
		if i.RefreshDeletes, c, err = takeBoolean(c, tagBoolean); err != nil {
			return err
		}
	}
	set, _, err := expect(c, tagSet)
	if err != nil {
		return err
	}
	for len(set) > 0 {
		var id []byte
		if id, set, err = expect(set, tagOctetString); err != nil {
			return err
		}
		if len(id) != 16 {
			return Errorf(ProtocolError, "entryUUID of %d octets", len(id))
		}
		i.UUIDs = append(i.UUIDs, [16]byte(id))
	}
	return nil
}
