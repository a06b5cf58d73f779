package devcluster

import "slices"

// The servers of the service on one machine.
const (
	roleVault  = "vault"
	roleSwitch = "switch"
	roleBox    = "box"
)

type server struct {
	name  string
	role  string
	index int // from 1, among those of the role
}

// fleet is in the order of starting; it is stopped in reverse order of the roles, switches first.
var fleet = []server{
	{"vault1", roleVault, 1}, // the master: it takes the updates
	{"vault2", roleVault, 2},
	{"vault3", roleVault, 3},
	{"box1", roleBox, 1},
	{"box2", roleBox, 2},
	{"switch1", roleSwitch, 1},
	{"switch2", roleSwitch, 2},
}

// master is the vault that the others are shadows of.
var master = fleet[0]

// shadow says whether a server is a copy of the master.
func (s server) shadow() bool { return s.role == roleVault && s != master }

// roles in the order of their places among the ports without a well-known number.
var roles = []string{roleVault, roleSwitch, roleBox}

func (s server) place() int { return slices.Index(roles, s.role) }

// program is the daemon's command.
func (s server) program() string { return s.role + "d" }

// frontend is a service that the balancer offers.
type frontend struct {
	name  string // in haproxy.cfg and in the directory
	title string // for people
	port  int
	role  string // who serves it
	proxy bool   // the servers demand a PROXY v2 header
	check string // haproxy's check; "" tracks the frontend named by track
	track string
	idle  string // time-out for client and server
}

// The checks speak the protocol. An IDLE client may be silent for 30 minutes (RFC 9051 §5.4), a POP3 client and an SMTP
// peer after the end of the data for 10 (RFC 1939 §3, RFC 5321 §4.5.3.2.6), and connections to the directory are kept.
const (
	idleIMAP = "35m"
	idleSMTP = "11m"
	idlePOP  = "15m"
	idleLDAP = "2h"
)

var frontends = []frontend{
	{name: "smtp", title: "SMTP", port: portSMTP, role: roleSwitch, proxy: true, idle: idleSMTP,
		check: "option smtpchk EHLO lb1.shoal"},
	{name: "submission", title: "submission", port: portSubmission, role: roleSwitch, proxy: true, idle: idleSMTP,
		check: "option smtpchk EHLO lb1.shoal"},
	{name: "submissions", title: "submission over TLS", port: portSubmissions, role: roleSwitch, proxy: true, idle: idleSMTP,
		track: "submission"},
	{name: "imap", title: "IMAP", port: portIMAP, role: roleBox, proxy: true, idle: idleIMAP,
		check: `option tcp-check
	tcp-check connect send-proxy
	tcp-check expect rstring ^\*\ OK
	tcp-check send A1\ LOGOUT\r\n
	tcp-check expect string A1\ OK`},
	{name: "imaps", title: "IMAP over TLS", port: portIMAPS, role: roleBox, proxy: true, idle: idleIMAP,
		track: "imap"},
	{name: "pop3", title: "POP3", port: portPOP, role: roleBox, proxy: true, idle: idlePOP,
		check: `option tcp-check
	tcp-check connect send-proxy
	tcp-check expect string +OK
	tcp-check send QUIT\r\n
	tcp-check expect string +OK`},
	{name: "pop3s", title: "POP3 over TLS", port: portPOPS, role: roleBox, proxy: true, idle: idlePOP,
		track: "pop3"},
	{name: "managesieve", title: "ManageSieve", port: portSieve, role: roleBox, proxy: true, idle: idleIMAP,
		check: `option tcp-check
	tcp-check connect send-proxy
	tcp-check expect rstring OK\ .*ready
	tcp-check send LOGOUT\r\n
	tcp-check expect rstring OK`},
	{name: "relay", title: "relaying for boxes", port: portRelay, role: roleSwitch, idle: idleSMTP,
		check: `option tcp-check
	tcp-check connect
	tcp-check expect string 220
	tcp-check send LHLO\ lb1.shoal\r\n
	tcp-check expect string 250
	tcp-check send QUIT\r\n
	tcp-check expect string 221`},
	{name: "lmtp", title: "LMTP", port: portLMTP, role: roleBox, idle: idleSMTP,
		check: `option tcp-check
	tcp-check connect
	tcp-check expect string 220
	tcp-check send LHLO\ lb1.shoal\r\n
	tcp-check expect string 250
	tcp-check send QUIT\r\n
	tcp-check expect string 221`},
	{name: "ldap", title: "LDAP", port: portLDAP, role: roleVault, idle: idleLDAP,
		check: "option ldap-check"},
	{name: "ldaps", title: "LDAP over TLS", port: portLDAPS, role: roleVault, idle: idleLDAP,
		track: "ldap"},
}

// of returns the servers of a role.
func of(role string) []server {
	var all []server
	for _, s := range fleet {
		if s.role == role {
			all = append(all, s)
		}
	}
	return all
}
