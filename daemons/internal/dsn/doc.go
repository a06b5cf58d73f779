// Package dsn writes delivery status notifications: failures, delays and, where asked for, successes, as the
// multipart/report messages of RFC 3461, 3462 and 3464. It sends nothing; package relay queues what it writes.
package dsn
