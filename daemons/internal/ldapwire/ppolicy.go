package ldapwire

// OIDPasswordPolicy is the control of draft-behera-ldap-password-policy-10 §6, in requests and responses.
const OIDPasswordPolicy = "1.3.6.1.4.1.42.2.27.8.5.1"

// PolicyError is what a password policy says about a request.
type PolicyError int32

// Errors of draft-behera-ldap-password-policy-10 §6.2; PolicyNoError is none.
const (
	PolicyNoError              PolicyError = -1
	PasswordExpired            PolicyError = 0
	AccountLocked              PolicyError = 1
	ChangeAfterReset           PolicyError = 2
	PasswordModNotAllowed      PolicyError = 3
	MustSupplyOldPassword      PolicyError = 4
	InsufficientQuality        PolicyError = 5
	PasswordTooShort           PolicyError = 6
	PasswordTooYoung           PolicyError = 7
	PasswordInHistory          PolicyError = 8
	PasswordTooLong            PolicyError = 9
	policyWarning              byte        = 0xa0
	policyTimeBeforeExpiration byte        = 0x80
	policyGraceRemaining       byte        = 0x81
	policyError                byte        = 0x81
)

// PolicyResponse is the value of the response control. A negative number is absent; at most one of the two warnings
// is given.
type PolicyResponse struct {
	Expires int32 // seconds until the password expires
	Grace   int32 // logins that are left after it expired
	Error   PolicyError
}

// NoPolicyResponse says nothing.
var NoPolicyResponse = PolicyResponse{Expires: -1, Grace: -1, Error: PolicyNoError}

// Append appends the whole control:
//
//	PasswordPolicyResponseValue ::= SEQUENCE {
//	    warning [0] CHOICE { timeBeforeExpiration [0] INTEGER, graceAuthNsRemaining [1] INTEGER } OPTIONAL,
//	    error   [1] ENUMERATED OPTIONAL }
func (p PolicyResponse) Append(dst []byte) []byte {
	var warning, value []byte
	if p.Expires >= 0 {
		warning = appendInteger(nil, policyTimeBeforeExpiration, p.Expires)
	} else if p.Grace >= 0 {
		warning = appendInteger(nil, policyGraceRemaining, p.Grace)
	}
	if warning != nil {
		value = appendString(value, policyWarning, warning)
	}
	if p.Error >= 0 {
		value = appendInteger(value, policyError, int32(p.Error))
	}
	return AppendControl(dst, OIDPasswordPolicy, false, appendString(nil, tagSequence, value))
}

// AppendBind appends a bind response. credentials are those of SASL, nil for none; controls are the concatenation of
// what AppendControl made.
func AppendBind(dst []byte, id int32, r *Result, credentials, controls []byte) []byte {
	n := r.size()
	if credentials != nil {
		n += elementSize(len(credentials))
	}
	dst = appendMessageStart(dst, id, OpBindResponse, n, len(controls))
	dst = r.append(dst)
	if credentials != nil {
		dst = appendString(dst, 0x87, credentials)
	}
	return appendControls(dst, controls)
}
