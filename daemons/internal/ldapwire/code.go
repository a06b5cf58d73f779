package ldapwire

import "fmt"

// Code is a result code of RFC 4511 §4.1.9, or of the documents named beside it.
type Code int32

// Result codes.
const (
	Success                      Code = 0
	OperationsError              Code = 1
	ProtocolError                Code = 2
	TimeLimitExceeded            Code = 3
	SizeLimitExceeded            Code = 4
	CompareFalse                 Code = 5
	CompareTrue                  Code = 6
	AuthMethodNotSupported       Code = 7
	StrongerAuthRequired         Code = 8
	Referral                     Code = 10
	AdminLimitExceeded           Code = 11
	UnavailableCriticalExtension Code = 12
	ConfidentialityRequired      Code = 13
	SASLBindInProgress           Code = 14
	NoSuchAttribute              Code = 16
	UndefinedAttributeType       Code = 17
	InappropriateMatching        Code = 18
	ConstraintViolation          Code = 19
	AttributeOrValueExists       Code = 20
	InvalidAttributeSyntax       Code = 21
	NoSuchObject                 Code = 32
	AliasProblem                 Code = 33
	InvalidDNSyntax              Code = 34
	AliasDereferencingProblem    Code = 36
	InappropriateAuthentication  Code = 48
	InvalidCredentials           Code = 49
	InsufficientAccessRights     Code = 50
	Busy                         Code = 51
	Unavailable                  Code = 52
	UnwillingToPerform           Code = 53
	LoopDetect                   Code = 54
	NamingViolation              Code = 64
	ObjectClassViolation         Code = 65
	NotAllowedOnNonLeaf          Code = 66
	NotAllowedOnRDN              Code = 67
	EntryAlreadyExists           Code = 68
	ObjectClassModsProhibited    Code = 69
	AffectsMultipleDSAs          Code = 71
	Other                        Code = 80
	Canceled                     Code = 118   // RFC 3909
	NoSuchOperation              Code = 119   // RFC 3909
	TooLate                      Code = 120   // RFC 3909
	CannotCancel                 Code = 121   // RFC 3909
	AssertionFailed              Code = 122   // RFC 4528
	AuthorizationDenied          Code = 123   // RFC 4370
	SortControlMissing           Code = 60    // draft-ietf-ldapext-ldapv3-vlv
	OffsetRangeError             Code = 61    // draft-ietf-ldapext-ldapv3-vlv
	SyncRefreshRequired          Code = 4096  // RFC 4533
	NoOperation                  Code = 16654 // draft-zeilenga-ldap-noop, as OpenLDAP has it
)

var codeNames = map[Code]string{
	Success: "success", OperationsError: "operationsError", ProtocolError: "protocolError",
	TimeLimitExceeded: "timeLimitExceeded", SizeLimitExceeded: "sizeLimitExceeded",
	CompareFalse: "compareFalse", CompareTrue: "compareTrue",
	AuthMethodNotSupported: "authMethodNotSupported", StrongerAuthRequired: "strongerAuthRequired",
	Referral: "referral", AdminLimitExceeded: "adminLimitExceeded",
	UnavailableCriticalExtension: "unavailableCriticalExtension",
	ConfidentialityRequired:      "confidentialityRequired", SASLBindInProgress: "saslBindInProgress",
	NoSuchAttribute: "noSuchAttribute", UndefinedAttributeType: "undefinedAttributeType",
	InappropriateMatching: "inappropriateMatching", ConstraintViolation: "constraintViolation",
	AttributeOrValueExists: "attributeOrValueExists", InvalidAttributeSyntax: "invalidAttributeSyntax",
	NoSuchObject: "noSuchObject", AliasProblem: "aliasProblem", InvalidDNSyntax: "invalidDNSyntax",
	AliasDereferencingProblem:   "aliasDereferencingProblem",
	InappropriateAuthentication: "inappropriateAuthentication", InvalidCredentials: "invalidCredentials",
	InsufficientAccessRights: "insufficientAccessRights", Busy: "busy", Unavailable: "unavailable",
	UnwillingToPerform: "unwillingToPerform", LoopDetect: "loopDetect",
	NamingViolation: "namingViolation", ObjectClassViolation: "objectClassViolation",
	NotAllowedOnNonLeaf: "notAllowedOnNonLeaf", NotAllowedOnRDN: "notAllowedOnRDN",
	EntryAlreadyExists: "entryAlreadyExists", ObjectClassModsProhibited: "objectClassModsProhibited",
	AffectsMultipleDSAs: "affectsMultipleDSAs", Other: "other", Canceled: "canceled",
	NoSuchOperation: "noSuchOperation", TooLate: "tooLate", CannotCancel: "cannotCancel",
	AssertionFailed: "assertionFailed", SyncRefreshRequired: "e-syncRefreshRequired",
	AuthorizationDenied: "authorizationDenied", SortControlMissing: "sortControlMissing",
	OffsetRangeError: "offsetRangeError", NoOperation: "noOperation",
}

// String gives the name that RFC 4511 uses.
func (c Code) String() string {
	if n, ok := codeNames[c]; ok {
		return n
	}
	return fmt.Sprintf("resultCode %d", int32(c))
}

// Error is a failure that is answered with a result code. Matched is the matchedDN of the answer:
// the nearest superior that exists, where the code calls for one (RFC 4511 §4.1.9).
type Error struct {
	Code      Code
	Message   string
	Matched   string
	Referrals []string // URIs; only with Code Referral
}

func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code.String()
	}
	return e.Code.String() + ": " + e.Message
}

// Errorf makes an *Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
