package ldapwire

// realSearchControlValue ::= SEQUENCE { size INTEGER (0..maxInt), cookie OCTET STRING }

// ParsePaged reads the value of a paged results control (RFC 2696).
func ParsePaged(value []byte) (size int32, cookie []byte, err error) {
	seq, _, err := expect(value, tagSequence)
	if err != nil {
		return 0, nil, err
	}
	if size, seq, err = takeInteger(seq, tagInteger); err != nil {
		return 0, nil, err
	}
	if size < 0 {
		return 0, nil, Errorf(ProtocolError, "negative page size")
	}
	cookie, _, err = expect(seq, tagOctetString)
	return size, cookie, err
}

// AppendPaged appends the paged results control of a response. estimate is the server's guess of
// the whole number of entries, 0 for unknown; an empty cookie says that this is the last page.
func AppendPaged(dst []byte, estimate int32, cookie []byte) []byte {
	v := make([]byte, 0, 16+len(cookie))
	v = appendInteger(v, tagInteger, estimate)
	v = appendString(v, tagOctetString, cookie)
	v = wrap(v, 0, tagSequence)
	return AppendControl(dst, OIDPagedResults, false, v)
}

// cancelRequestValue ::= SEQUENCE { cancelID MessageID }

// ParseCancel reads the value of a cancel request (RFC 3909 §2.1): the id of the operation to cancel.
func ParseCancel(value []byte) (int32, error) {
	seq, _, err := expect(value, tagSequence)
	if err != nil {
		return 0, err
	}
	id, _, err := takeInteger(seq, tagInteger)
	return id, err
}
