package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"shoal/daemons/nfsguest/proto"
)

// diskQuota is struct fs_disk_quota of <linux/dqblk_xfs.h>; blocks are of 512 bytes.
type diskQuota struct {
	version, flags              int8
	fields                      uint16
	id                          uint32
	blockHard, blockSoft        uint64
	fileHard, fileSoft          uint64
	blocks, files               uint64
	fileTimer, blockTimer       int32
	fileWarnings, blockWarnings uint16
	_                           [4]byte
	rtHard, rtSoft, rtBlocks    uint64
	rtTimer                     int32
	rtWarnings                  uint16
	_                           int16
	_                           [8]byte
}

// quotactl(2) on XFS: commands, and bits of diskQuota.fields.
const (
	getQuota  = 'X'<<8 + 3
	setLimits = 'X'<<8 + 4

	hasFileHard, hasBlockHard = 1 << 1, 1 << 3
)

// Limit sets a hard limit so that there is room for so much more than is used.
func (g *Guest) Limit(a proto.Limit, _ *proto.None) error {
	kind := uintptr(0) // of a user
	if a.Project {
		kind = 2
	}
	disk, err := unix.BytePtrFromString("/dev/ubda")
	if err != nil {
		return err
	}
	call := func(command uintptr, q *diskQuota) error {
		if _, _, e := unix.Syscall6(unix.SYS_QUOTACTL, command<<8|kind, uintptr(unsafe.Pointer(disk)), uintptr(a.ID), uintptr(unsafe.Pointer(q)), 0, 0); e != 0 {
			return fmt.Errorf("quotactl %x: %w", command, e)
		}
		return nil
	}
	var q diskQuota
	if err := call(getQuota, &q); err != nil {
		return err
	}
	limit := diskQuota{version: 1, flags: int8(kind) + 1, id: a.ID, fields: hasFileHard | hasBlockHard}
	if kind == 2 {
		limit.flags = 2
	}
	if a.Files >= 0 {
		limit.fileHard = q.files + uint64(a.Files)
	}
	if a.KiB >= 0 {
		limit.blockHard = q.blocks + 2*uint64(a.KiB)
	}
	return call(setLimits, &limit)
}
