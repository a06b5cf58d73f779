package mailstore

import (
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// Constants of the format: changing one of them is a new major version.
const (
	// segmentLen is the number of records in one directory of a log: segment k holds the records
	// k*segmentLen+1 ... (k+1)*segmentLen.
	segmentLen = 128
	// messageDirLen: the message with UID u lies in m/<u/messageDirLen> unless its record says otherwise.
	messageDirLen = 8192
	// maxRecord is the length of the longest symlink target ever written; XFS refuses 1,024.
	maxRecord = 1000
	// maxSpill bounds a record that lies in a file of its own.
	maxSpill = 64 << 20
)

// The version of the format. A reader reads every minor version of its major version.
const (
	formatMajor = 1
	formatMinor = 0
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Directories of an account and of a mailbox (docs/store.md).
const (
	dirLog      = "log"
	dirSnap     = "snap"
	dirInterest = "w"
	dirTmp      = "tmp"
	dirMessages = "m"
	dirBoxes    = "b"
)

const (
	floorPrefix = "floor."
	floorMax    = "max"
)

// accountPath is the directory of an account below the volume's root: the accounts are spread over 256
// directories by the low byte of the CRC32C of their id.
func accountPath(root, accountID string) string {
	h := crc32.Checksum([]byte(accountID), castagnoli) & 0xff
	return fmt.Sprintf("%s/a/%02x/%s", root, h, accountID)
}

// validAccountID: [a-z0-9-]{8,40}.
func validAccountID(id string) bool {
	if len(id) < 8 || len(id) > 40 {
		return false
	}
	return isNameBytes(id)
}

// validServer: [a-z0-9][a-z0-9-]{0,14}, and not the word that floors begin with.
func validServer(s string) bool {
	return len(s) >= 1 && len(s) <= 15 && s[0] != '-' && s != "floor" && isNameBytes(s)
}

func isNameBytes(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// parseDec reads a decimal number without sign or leading zeros.
func parseDec(s string) (uint64, bool) {
	if s == "" || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

// parse36 reads a base-36 number in lower case without sign or leading zeros.
func parse36(s string) (uint64, bool) {
	if s == "" || len(s) > 13 || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	var n uint64
	for i := 0; i < len(s); i++ {
		c := s[i]
		var d uint64
		switch {
		case c >= '0' && c <= '9':
			d = uint64(c - '0')
		case c >= 'a' && c <= 'z':
			d = uint64(c-'a') + 10
		default:
			return 0, false
		}
		if n > (1<<64-1-d)/36 {
			return 0, false
		}
		n = n*36 + d
	}
	return n, true
}

// parse36signed also reads a leading minus sign.
func parse36signed(s string) (int64, bool) {
	neg := strings.HasPrefix(s, "-")
	if neg {
		s = s[1:]
	}
	n, ok := parse36(s)
	if !ok || n > 1<<62 {
		return 0, false
	}
	if neg {
		if n == 0 {
			return 0, false
		}
		return -int64(n), true
	}
	return int64(n), true
}

func append36(b []byte, n uint64) []byte { return strconv.AppendUint(b, n, 36) }

func append36signed(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 36) }

func appendDec(b []byte, n uint64) []byte { return strconv.AppendUint(b, n, 10) }

// checksum is the CRC32C used throughout the format.
func checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// updateChecksum goes on with a CRC32C.
func updateChecksum(sum uint32, p []byte) uint32 { return crc32.Update(sum, castagnoli, p) }
