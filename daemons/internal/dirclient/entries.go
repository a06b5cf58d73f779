package dirclient

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Names of the schema that this package reads and writes; the schema itself is package dirschema's.
const (
	classServer  = "shoalServer"
	classVolume  = "shoalVolume"
	classDomain  = "shoalDomain"
	classAccount = "shoalAccount"
	classAlias   = "shoalAlias"

	attrObjectClass = "objectClass"
	attrCN          = "cn"
	attrSN          = "sn"
	attrOU          = "ou"
	attrUID         = "uid"
	attrMail        = "mail"
	attrMailLocal   = "mailLocalAddress"
	attrPassword    = "userPassword"

	attrAssociatedDomain = "associatedDomain"

	attrRole              = "shoalRole"
	attrAddress           = "shoalAddress"
	attrVersion           = "shoalVersion"
	attrVolumeID          = "shoalVolumeId"
	attrVolumeState       = "shoalVolumeState"
	attrAccountID         = "shoalAccountId"
	attrVolumeName        = "shoalVolumeName"
	attrAccountStatus     = "shoalAccountStatus"
	attrQuotaStorage      = "shoalQuotaStorage"
	attrQuotaMessages     = "shoalQuotaMessages"
	attrDomainStatus      = "shoalDomainStatus"
	attrDefaultVolume     = "shoalDefaultVolume"
	attrCatchAll          = "shoalCatchAll"
	attrSieveBefore       = "shoalSieveBefore"
	attrSieveAfter        = "shoalSieveAfter"
	attrCredentialVersion = "shoalCredentialVersion"
	attrMailTarget        = "shoalMailTarget"
	attrForward           = "shoalForward"
	attrForwardKeep       = "shoalForwardKeep"
	attrSubaddress        = "shoalSubaddress"
	attrSieveGlobal       = "shoalSieveGlobal"
	attrPublic            = "shoalPublic"
)

// What lookups ask for: never userPassword, nor anything that a lookup does not use.
var (
	accountAttributes = []string{attrCN, attrMail, attrMailLocal, attrAccountID, attrVolumeName, attrAccountStatus,
		attrQuotaStorage, attrQuotaMessages, attrCredentialVersion, attrForward, attrForwardKeep, attrMigrating, attrSessionEpoch, attrLastLogin, attrPublic}
	aliasAttributes  = []string{attrMailLocal, attrMailTarget}
	domainAttributes = []string{attrAssociatedDomain, attrDomainStatus, attrDefaultVolume, attrCatchAll, attrQuotaStorage, attrQuotaMessages,
		attrSieveBefore, attrSieveAfter, attrSieveGlobal, attrSubaddress, attrMigrationServer, attrMigrationTLS, attrMigrationUser, attrMigrationSecret,
		attrMigrationLogin, attrMigrationState, attrMigrationCreate}
	serverAttributes = []string{attrCN, attrRole, attrAddress, attrVersion, attrTokenKey}
	volumeAttributes = []string{attrCN, attrVolumeID, attrVolumeState}
)

func configDN(suffix string) string  { return "ou=config," + suffix }
func serversDN(suffix string) string { return "ou=servers,ou=config," + suffix }
func volumesDN(suffix string) string { return "ou=volumes,ou=config," + suffix }
func domainsDN(suffix string) string { return "ou=domains," + suffix }

// AdminDN is the bootstrap identity that may write everything (the directory's root DN).
func AdminDN(suffix string) string { return "cn=admin," + suffix }

// ServerDN is where the entry of a server lies, which is also whom the server binds as.
func ServerDN(suffix, name string) string {
	return attrCN + "=" + ldap.EscapeDN(name) + "," + serversDN(suffix)
}

// VolumeDN is where the entry of a volume lies.
func VolumeDN(suffix, name string) string {
	return attrCN + "=" + ldap.EscapeDN(name) + "," + volumesDN(suffix)
}

// DomainDN is where the entry of a domain lies; its accounts lie below it.
func DomainDN(suffix, name string) string {
	return attrAssociatedDomain + "=" + ldap.EscapeDN(name) + "," + domainsDN(suffix)
}

// AccountDN is where the entry of an account lies, by the two halves of its primary address.
func AccountDN(suffix, local, domain string) string {
	return attrUID + "=" + ldap.EscapeDN(local) + "," + DomainDN(suffix, domain)
}

// Attribute is one attribute of an entry with its values, in the order in which it was written or read.
type Attribute struct {
	Name   string
	Values []string
}

// Entry is an entry to add, or one that a search found.
type Entry struct {
	DN         string
	Attributes []Attribute
}

// Get returns the values of an attribute; names are compared without regard to case.
func (e *Entry) Get(name string) []string {
	for _, a := range e.Attributes {
		if strings.EqualFold(a.Name, name) {
			return a.Values
		}
	}
	return nil
}

// First returns the first value of an attribute, or "".
func (e *Entry) First(name string) string {
	if v := e.Get(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

// set adds an attribute unless it has no values or only an empty one.
func (e *Entry) set(name string, values ...string) {
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return
	}
	e.Attributes = append(e.Attributes, Attribute{Name: name, Values: values})
}

// NewServer describes a server entry to create.
type NewServer struct {
	Name      string
	Role      string
	Addresses map[string][]string // by service
	Password  string              // what the server binds with; empty: it gets none and cannot log in
}

// Entry checks the description and gives the entry.
func (n NewServer) Entry(suffix string) (Entry, error) {
	if err := CheckServerName(n.Name); err != nil {
		return Entry{}, err
	}
	if !slices.Contains(roles, n.Role) {
		return Entry{}, fmt.Errorf("%w: role %q: it is one of %s", ErrInvalidName, n.Role, strings.Join(roles, ", "))
	}
	addresses, err := addressValues(n.Addresses)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{DN: ServerDN(suffix, n.Name)}
	e.set(attrObjectClass, classServer)
	e.set(attrCN, n.Name)
	e.set(attrRole, n.Role)
	e.set(attrAddress, addresses...)
	e.set(attrPassword, n.Password)
	return e, nil
}

// NewVolume describes a volume entry to create.
type NewVolume struct {
	Name  string
	ID    string // the uuid in the volume's marker file
	State string // empty: VolumeActive
}

// Entry checks the description and gives the entry.
func (n NewVolume) Entry(suffix string) (Entry, error) {
	if err := CheckVolumeName(n.Name); err != nil {
		return Entry{}, err
	}
	if !uuidPattern.MatchString(n.ID) {
		return Entry{}, fmt.Errorf("%w: volume id %q: it is the uuid in the volume's marker file", ErrInvalidName, n.ID)
	}
	def(&n.State, VolumeActive)
	if n.State != VolumeActive && n.State != VolumeDraining && n.State != VolumeClosed {
		return Entry{}, fmt.Errorf("%w: volume state %q: it is active, draining or closed", ErrInvalidName, n.State)
	}
	e := Entry{DN: VolumeDN(suffix, n.Name)}
	e.set(attrObjectClass, classVolume)
	e.set(attrCN, n.Name)
	e.set(attrVolumeID, n.ID)
	e.set(attrVolumeState, n.State)
	return e, nil
}

// NewDomain describes a domain entry to create.
type NewDomain struct {
	Name          string // A- or U-labels, any case
	Status        string // empty: StatusActive
	DefaultVolume string // where new accounts' mail goes; may be empty
	CatchAll      string // address of an account; may be empty
	QuotaStorage  int64  // of new accounts, bytes; 0: DefaultQuotaStorage
}

// Entry checks the description and gives the entry.
func (n NewDomain) Entry(suffix string) (Entry, error) {
	name, err := DomainName(n.Name)
	if err != nil {
		return Entry{}, err
	}
	def(&n.Status, StatusActive)
	if !knownStatus(n.Status) {
		return Entry{}, statusError(n.Status)
	}
	if n.DefaultVolume != "" {
		if err := CheckVolumeName(n.DefaultVolume); err != nil {
			return Entry{}, err
		}
	}
	if n.CatchAll != "" {
		if n.CatchAll, _, _, err = AccountAddress(n.CatchAll); err != nil {
			return Entry{}, err
		}
	}
	e := Entry{DN: DomainDN(suffix, name)}
	e.set(attrObjectClass, classDomain, "domainRelatedObject")
	e.set(attrAssociatedDomain, name)
	e.set(attrDomainStatus, n.Status)
	e.set(attrDefaultVolume, n.DefaultVolume)
	e.set(attrCatchAll, n.CatchAll)
	if n.QuotaStorage > 0 {
		e.set(attrQuotaStorage, strconv.FormatInt(n.QuotaStorage, 10))
	}
	return e, nil
}

// NewAccount describes an account entry to create.
type NewAccount struct {
	Address       string   // primary address
	Aliases       []string // further addresses
	DisplayName   string   // empty: the local part
	ID            string   // empty: a new random one
	Volume        string   // where the mail lies; Admin.AddAccount finds one when it is empty
	Status        string   // empty: StatusActive
	Password      string   // in clear, which the directory hashes, or "{SCHEME}..."; empty: no login
	QuotaStorage  int64    // bytes; 0: the domain's, or DefaultQuotaStorage; NoQuota: no limit
	QuotaMessages int64    // 0: the domain's, if it has one; NoQuota: no limit
	Migrating     []string // what comes from the old server: MigratePassword, MigrateMail
	Public        bool     // an account of public mailboxes
	// Place chooses among several active volumes when neither Volume nor the domain names one.
	Place func(ctx context.Context, active []string) (string, error)
}

// Entry checks the description and gives the entry. now becomes the first credential version.
func (n NewAccount) Entry(suffix string, now time.Time) (Entry, error) {
	address, local, domain, err := AccountAddress(n.Address)
	if err != nil {
		return Entry{}, err
	}
	all := []string{address}
	for _, alias := range n.Aliases {
		a, _, _, err := AccountAddress(alias)
		if err != nil {
			return Entry{}, err
		}
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	def(&n.Status, StatusActive)
	if !knownStatus(n.Status) {
		return Entry{}, statusError(n.Status)
	}
	if n.ID == "" {
		n.ID = newAccountID()
	} else if !accountIDPattern.MatchString(n.ID) {
		return Entry{}, fmt.Errorf("%w: account id %q: 8 to 40 of a-z, 0-9 and '-' are allowed", ErrInvalidName, n.ID)
	}
	if err := CheckVolumeName(n.Volume); err != nil {
		return Entry{}, err
	}
	if n.QuotaStorage < 0 || n.QuotaMessages < 0 {
		return Entry{}, fmt.Errorf("%w: a quota cannot be negative", ErrInvalidName)
	}
	if n.Password != "" {
		if err := CheckPassword(n.Password); err != nil {
			return Entry{}, err
		}
	}
	def(&n.DisplayName, local)
	e := Entry{DN: AccountDN(suffix, local, domain)}
	e.set(attrObjectClass, "inetOrgPerson", "inetLocalMailRecipient", classAccount)
	e.set(attrUID, local)
	e.set(attrCN, n.DisplayName)
	e.set(attrSN, lastWord(n.DisplayName))
	e.set(attrMail, address)
	e.set(attrMailLocal, all...)
	e.set(attrAccountID, n.ID)
	e.set(attrVolumeName, n.Volume)
	e.set(attrAccountStatus, n.Status)
	if n.QuotaStorage > 0 {
		e.set(attrQuotaStorage, strconv.FormatInt(n.QuotaStorage, 10))
	}
	if n.QuotaMessages > 0 {
		e.set(attrQuotaMessages, strconv.FormatInt(n.QuotaMessages, 10))
	}
	e.set(attrCredentialVersion, credentialVersion(now))
	e.set(attrMigrating, n.Migrating...)
	if n.Public {
		e.set(attrPublic, "TRUE")
	}
	e.set(attrPassword, n.Password)
	return e, nil
}

// credentialVersion is the milliseconds since 1970: it moves with each change without reading the last one.
func credentialVersion(now time.Time) string { return strconv.FormatInt(now.UnixMilli(), 10) }

func lastWord(s string) string {
	if f := strings.Fields(s); len(f) > 0 {
		return f[len(f)-1]
	}
	return s
}

// tree is what must stand before anything else can be added, parents first.
func tree(suffix string) ([]Entry, error) {
	dn, err := ldap.ParseDN(suffix)
	if err != nil || len(dn.RDNs) == 0 || len(dn.RDNs[0].Attributes) != 1 {
		return nil, fmt.Errorf("%w: suffix %q", ErrInvalidName, suffix)
	}
	first := dn.RDNs[0].Attributes[0]
	top := Entry{DN: suffix}
	switch strings.ToLower(first.Type) {
	case "o":
		top.set(attrObjectClass, "organization")
		top.set("o", first.Value)
	case "dc":
		top.set(attrObjectClass, "organization", "dcObject")
		top.set("o", first.Value)
		top.set("dc", first.Value)
	case "ou":
		top.set(attrObjectClass, "organizationalUnit")
		top.set(attrOU, first.Value)
	default:
		return nil, fmt.Errorf("%w: suffix %q: begin it with o=, ou= or dc=", ErrInvalidName, suffix)
	}
	entries := []Entry{top}
	for _, at := range []string{configDN(suffix), serversDN(suffix), volumesDN(suffix), domainsDN(suffix)} {
		e := Entry{DN: at}
		e.set(attrObjectClass, "organizationalUnit")
		e.set(attrOU, strings.TrimPrefix(at[:strings.IndexByte(at, ',')], "ou="))
		entries = append(entries, e)
	}
	return entries, nil
}
