package access

import (
	"fmt"
	"strings"

	"shoal/daemons/internal/dirschema"
)

// secrets are read by nobody but whom a rule of the service's own names.
var secrets = []string{"userPassword", "pwdHistory", "authPassword", "shoalScramKey", "shoalDkimSealedKey", "shoalMigrationSecret", "shoalEnrolToken"}

func isSecret(a *dirschema.AttributeType) bool {
	for _, name := range secrets {
		if a.Name() == name {
			return true
		}
	}
	return false
}

// granting are the attributes that give rights: they are written with manage only.
var granting = map[string]bool{"shoalAccess": true, "shoalAdministrator": true, "shoalRole": true}

// serviceRules are the service's own. All that match count, and none can be taken away by a rule in the directory. SUFFIX, CONFIG,
// SERVERS and DOMAINS stand for the names of those entries.
const serviceRules = `
to * by role=box,switch,webmail,vault,provision,operator,storage,filter read
to dn.base="SUFFIX" by role=* read
to dn.subtree="CONFIG" by role=* read
to attrs=authPassword,shoalScramKey by role=box,switch =read
to attrs=shoalMigrationSecret by role=box =read
to attrs=shoalDkimSealedKey by role=switch =read
to dn.one="SERVERS" attrs=shoalEnrolToken by role=enrol read,delete
to dn.one="SERVERS" attrs=userPassword by role=enrol =add,delete by anonymous =auth
to dn.one="SERVERS" attrs=shoalVersion,shoalAddress by self role=* write
to dn.one="SERVERS" attrs=shoalTokenKey by self role=webmail write
to attrs=shoalLastLogin by role=box,switch,webmail write
to attrs=pwdFailureTime,pwdAccountLockedTime,pwdGraceUseTime by role=vault write
to dn.subtree="DOMAINS" attrs=entry by role=box,switch =migrate
to * by role=vault =replicate
to dn.subtree="DOMAINS" by administrators read,administer
to dn.one="DOMAINS" attrs=description,shoalCatchAll,shoalSubaddress,shoalWhitePages,children by administrators write
to dn.children="DOMAINS" filter="(|(objectClass=shoalAccount)(objectClass=shoalAlias)(objectClass=groupOfNames)(objectClass=shoalAppPassword))" attrs=ADMINISTERED by administrators write
to dn.children="DOMAINS" filter="(|(objectClass=shoalAccount)(objectClass=shoalAppPassword))" attrs=userPassword by administrators =add,delete
to dn.children="DOMAINS" filter="(objectClass=shoalAccount)" attrs=shoalAccountId,shoalVolumeName by administrators =add
`

// administered is what an administrator of a domain writes of what lies under it.
const administered = "entry,children,@inetOrgPerson,mailLocalAddress,shoalAccountStatus,shoalQuotaStorage,shoalQuotaMessages,shoalForward,shoalForwardKeep," +
	"shoalMailTarget,@groupOfNames,shoalScope,shoalExpires,shoalSessionEpoch,shoalCredentialVersion,pwdAccountLockedTime,pwdReset"

// whitePages is what the accounts of a domain see of each other where its shoalWhitePages is TRUE.
const whitePages = "entry,objectClass,cn,sn,givenName,displayName,initials,uid,mail,telephoneNumber,mobile,title,ou,o,l,userCertificate,userSMIMECertificate,jpegPhoto,preferredLanguage"

// defaultRules stand after all rules in the directory.
const defaultRules = `
to attrs=userPassword by self =password by anonymous =auth by * none
to dn.children="DOMAINS" filter="(objectClass=shoalAccount)" attrs=WHITEPAGES by self read by colleagues read by * none
to * by self read by * none
`

// builtin reads rules of the program. They are numbered as they stand.
func builtin(lang *Language, suffix, text string) (list []*Rule) {
	config := "ou=config," + suffix
	quote := func(s string) string {
		return strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `"`, `\"`)
	}
	names := strings.NewReplacer("SUFFIX", quote(suffix), "CONFIG", quote(config), "SERVERS", quote("ou=servers,"+config),
		"DOMAINS", quote("ou=domains,"+suffix), "ADMINISTERED", administered, "WHITEPAGES", whitePages)
	own := *lang
	own.service = true
	for line := range strings.Lines(strings.TrimSpace(text)) {
		rule, err := own.Parse(fmt.Sprintf("{%d}%s", len(list)+1, names.Replace(strings.TrimSpace(line))))
		if err != nil {
			panic(fmt.Sprintf("access: the program's own rule %q: %v", line, err)) // a test reads all of them
		}
		list = append(list, rule)
	}
	return list
}
